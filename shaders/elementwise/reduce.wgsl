// Sums rows of partial results in a fixed order.
//
//   out[g, i] = sum over rows r of group g of src[r, i]
//
// Bindings: src [rows, count] vec4, out [groups, count] vec4 where each group has `group` consecutive rows.
// One thread an output vec4; repeated until one row is left.
// Source: two-pass reduction without atomics, so that results repeat to the bit.

struct Params { count: u32, rows: u32, group: u32, groups: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let i = t % params.count;
  let group = t / params.count;
  if (group < params.groups) {
    let begin = group * params.group;
    let end = min(begin + params.group, params.rows);
    var s = vec4<f32>(0.0);
    for (var row = begin; row < end; row++) { s += src[row * params.count + i]; }
    out[t] = s;
  }
}
