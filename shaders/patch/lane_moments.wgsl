// Least, largest and summed value of each channel lane.
//
//   out[g] = (min, max, sum) over the parts that group g takes
//
// Bindings (vec4 = 4 channel lanes)
//   x    MERGE = 0: [count] values; MERGE = 1: [count, 3] of what an earlier run wrote
//   out  [groups, 3]
// A thread takes every (groups * LANES)-th of the `count` parts, then a workgroup merges its lanes in a tree: the order is
// fixed, so that results repeat to the bit. Two runs, the second of one group with MERGE = 1, leave one triple.
// Source: two-pass reduction without atomics.

struct Params { count: u32, groups: u32 }

override MERGE: u32 = 0u;
const LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> lows: array<vec4<f32>, LANES>;
var<workgroup> highs: array<vec4<f32>, LANES>;
var<workgroup> sums: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var low = vec4<f32>(3.4e38);
  var high = vec4<f32>(-3.4e38);
  var sum = vec4<f32>(0.0);
  for (var i = wg.x * LANES + lane; i < params.count; i += params.groups * LANES) {
    if (MERGE == 1u) {
      low = min(low, x[3u * i]);
      high = max(high, x[3u * i + 1u]);
      sum += x[3u * i + 2u];
    } else {
      let v = x[i];
      low = min(low, v);
      high = max(high, v);
      sum += v;
    }
  }
  lows[lane] = low;
  highs[lane] = high;
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half = half / 2u) {
    if (lane < half) {
      lows[lane] = min(lows[lane], lows[lane + half]);
      highs[lane] = max(highs[lane], highs[lane + half]);
      sums[lane] += sums[lane + half];
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    out[3u * wg.x] = lows[0];
    out[3u * wg.x + 1u] = highs[0];
    out[3u * wg.x + 2u] = sums[0];
  }
}
