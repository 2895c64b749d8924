// Maximum and sum of the softmax of each voxel, where its classes come in groups.
//
//   max' = max(max, x[k] of the group),  Σ' = Σ exp(max - max') + Σ_k exp(x[k] - max')
//
// Bindings (CB blocks of four class lanes)
//   scores  vec4<f32> [planes, CB, height, columns]   packed class scores of the group, interpolated along W on the way
//   places  vec4<f32> [words, 2]                      as columns.wgsl has them
//   sums    vec4<f32> [rows, words, 2]                max and Σ of four voxels; those of the groups before, unless this has class 0
// One thread: four voxels of a row.
// Dispatch: ceil(rows * words / WG) groups, folded into x and y.
// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018.

struct Params {
  rows: u32,
  words: u32,
  height: u32,
  columns: u32,
  blocks: u32,
  base: u32,
  // classes in all, and the first of the group
  classes: u32,
  first_class: u32,
}

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> places: array<vec4<f32>>;

// import columns
// import softmax_terms

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (wg.x + wg.y * ng.x) * WG + lane;
  let row = at / params.words;
  if (row < params.rows) {
    let here = places_of(at % params.words);
    var whole = nothing();
    if (params.first_class > 0u) { whole = Whole(sums[2u * at], sums[2u * at + 1u]); }
    let scored = row_of(row);
    let f = classes_of(scored, 0u, params.first_class, here);
    whole = add_blocks(whole, scored, f, here);
    sums[2u * at] = whole.peak;
    sums[2u * at + 1u] = whole.sum;
  }
}
