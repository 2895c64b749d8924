// Hands rows on within a subgroup of SUB invocations, in which runs of RUN are neighbours along H.
//
// Asks of the importing file: SUB and RUN.
// needs subgroups
// Source: broadcasts with lanes known when the loop is unrolled, which every adapter with subgroups has.

// What the next invocation of the run holds; the run's last one takes `edge`.
fn next_lane(v: vec4<f32>, edge: vec4<f32>, lane: u32) -> vec4<f32> {
  var r = edge;
  // unroll
  for (var k = 0u; k < SUB; k++) {
    if (k % RUN != 0u) { r = select(r, subgroupBroadcast(v, k), lane + 1u == k); }
  }
  return r;
}
