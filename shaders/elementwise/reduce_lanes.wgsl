// Sums rows of partial results in a fixed order, shared out among lanes.
//
//   out[g, i] = sum over rows r of group g of src[r, i]
//
// Bindings: src [rows, count] vec4, out [groups, count] vec4 where each group has `group` consecutive rows.
// A workgroup makes COLUMNS neighbouring vectors of one group. LANES lanes share the rows of each out, and a tree adds them up.
// Dispatch: a workgroup for each run of COLUMNS vectors and group, runs fastest.
// Source: two-pass reduction without atomics, so that results repeat to the bit.

struct Params { count: u32, rows: u32, group: u32, groups: u32, runs: u32 }

const COLUMNS: u32 = 16u;
const LANES: u32 = 16u;
const THREADS: u32 = COLUMNS * LANES;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = wg.x + wg.y * ng.x;
  let i = t % params.runs * COLUMNS + lane % COLUMNS;
  let group = t / params.runs;
  let begin = group * params.group;
  let end = min(begin + params.group, params.rows);
  var s = vec4<f32>(0.0);
  if (i < params.count) {
    for (var row = begin + lane / COLUMNS; row < end; row += LANES) { s += src[row * params.count + i]; }
  }
  sums[lane] = s;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half * COLUMNS) { sums[lane] += sums[lane + half * COLUMNS]; }
    workgroupBarrier();
  }
  if (lane < COLUMNS && i < params.count && group < params.groups) { out[group * params.count + i] = sums[lane]; }
}
