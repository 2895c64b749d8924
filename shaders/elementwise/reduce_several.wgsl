// Sums rows of partial results in a fixed order, as reduce_lanes.wgsl does, of up to four sets that have nothing to do with one another.
//
//   out_k[i] = sum over rows r of src_k[r, i]
//
// Bindings: src_k [rows_k, count_k] vec4, out_k [count_k] vec4; those of the second to fourth set with the sections TWO, THREE and FOUR.
// A workgroup makes THREADS / lanes_k neighbouring vectors of one set. `lanes_k` lanes, a power of two up to 64, share the rows of each vector, and a tree adds
// them up.
// Dispatch: a workgroup for each run of vectors, runs_0, runs_1 and so on one after another.
// Source: two-pass reduction without atomics, so that results repeat to the bit.

struct Params {
  count_0: u32, rows_0: u32, lanes_0: u32, runs_0: u32,
  // section TWO
  count_1: u32, rows_1: u32, lanes_1: u32, runs_1: u32,
  // end TWO
  // section THREE
  count_2: u32, rows_2: u32, lanes_2: u32, runs_2: u32,
  // end THREE
  // section FOUR
  count_3: u32, rows_3: u32, lanes_3: u32, runs_3: u32,
  // end FOUR
}

const THREADS: u32 = 256u;
const MOST_LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src_0: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out_0: array<vec4<f32>>;
// section TWO
@group(0) @binding(3) var<storage, read> src_1: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out_1: array<vec4<f32>>;
// end TWO
// section THREE
@group(0) @binding(5) var<storage, read> src_2: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out_2: array<vec4<f32>>;
// end THREE
// section FOUR
@group(0) @binding(7) var<storage, read> src_3: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> out_3: array<vec4<f32>>;
// end FOUR

var<workgroup> sums: array<vec4<f32>, THREADS>;

// A set, which its workgroups have in common, and the workgroup's place among them.
struct Job { member: u32, count: u32, rows: u32, lanes: u32, run: u32 }

fn job_of(group: u32) -> Job {
  var t = group;
  if (t < params.runs_0) { return Job(0u, params.count_0, params.rows_0, params.lanes_0, t); }
  t -= params.runs_0;
  // section TWO
  if (t < params.runs_1) { return Job(1u, params.count_1, params.rows_1, params.lanes_1, t); }
  t -= params.runs_1;
  // end TWO
  // section THREE
  if (t < params.runs_2) { return Job(2u, params.count_2, params.rows_2, params.lanes_2, t); }
  t -= params.runs_2;
  // end THREE
  // section FOUR
  if (t < params.runs_3) { return Job(3u, params.count_3, params.rows_3, params.lanes_3, t); }
  // end FOUR
  // workgroups beyond the last run have nothing to do
  return Job(0u, 0u, 0u, 1u, 0u);
}

fn vector(member: u32, at: u32) -> vec4<f32> {
  // section FOUR
  if (member == 3u) { return src_3[at]; }
  // end FOUR
  // section THREE
  if (member == 2u) { return src_2[at]; }
  // end THREE
  // section TWO
  if (member == 1u) { return src_1[at]; }
  // end TWO
  return src_0[at];
}

fn store(member: u32, at: u32, sum: vec4<f32>) {
  // section FOUR
  if (member == 3u) { out_3[at] = sum; return; }
  // end FOUR
  // section THREE
  if (member == 2u) { out_2[at] = sum; return; }
  // end THREE
  // section TWO
  if (member == 1u) { out_1[at] = sum; return; }
  // end TWO
  out_0[at] = sum;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let job = job_of(wg.x + wg.y * ng.x);
  let columns = THREADS / job.lanes;
  let i = job.run * columns + lane % columns;
  var s = vec4<f32>(0.0);
  if (i < job.count) {
    for (var row = lane / columns; row < job.rows; row += job.lanes) { s += vector(job.member, row * job.count + i); }
  }
  sums[lane] = s;
  workgroupBarrier();
  // as many rounds for all sets, as their sizes come from a function
  for (var half = MOST_LANES / 2u; half > 0u; half /= 2u) {
    if (half < job.lanes && lane < half * columns) { sums[lane] += sums[lane + half * columns]; }
    workgroupBarrier();
  }
  if (lane < columns && i < job.count) { store(job.member, i, sums[lane]); }
}
