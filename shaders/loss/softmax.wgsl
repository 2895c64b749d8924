// Softmax over the classes of each voxel, p[k] = exp(x[k] - max) / Σ_j exp(x[j] - max), or the sigmoid of each region, as maps.
//
// Bindings (K classes in CB blocks of four lanes)
//   scores  vec4<f32> [planes, CB, height, columns]   packed class scores, interpolated along W on the way
//   places  vec4<f32> [words, 2]                      as columns.wgsl has them
//   maps    vec4<f32> [bound classes, all_rows, words]  four voxels a vector, from the row `row0` on
//   sums    vec4<f32> [rows, words, 2]   with the section GROUPED: each voxel's max and Σ, as softmax_sums.wgsl gives them
// Without GROUPED all classes are bound, with it a group of them. SIGMOID takes each for a region of its own. `add` puts the
// result on what is there; `scale` multiplies what becomes of it: a mean over networks. One thread: four voxels of
// `ROWS` rows.
// Dispatch: ceil(words * ceil(rows / ROWS) / WG) groups, folded into x and y.
// Source: the definition, shifted by the maximum against overflow.

struct Params {
  rows: u32,
  words: u32,
  height: u32,
  columns: u32,
  blocks: u32,
  base: u32,
  // classes in all, and the first of those that are bound
  classes: u32,
  first_class: u32,
  row0: u32,
  all_rows: u32,
  add: u32,
  scale: f32,
}

override SIGMOID: u32 = 0u;
override ROWS: u32 = 1u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> maps: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> places: array<vec4<f32>>;
// section GROUPED
@group(0) @binding(4) var<storage, read> sums: array<vec4<f32>>;
// end GROUPED

// import columns
// import softmax_terms

// section GROUPED
fn whole_of(at: u32, row: Row, first: Four, p: Places) -> Whole {
  return Whole(sums[2u * at], sums[2u * at + 1u]);
}
// otherwise
fn whole_of(at: u32, row: Row, first: Four, p: Places) -> Whole {
  return add_blocks(nothing(), row, first, p);
}
// end GROUPED

fn probability(x: vec4<f32>, whole: Whole) -> vec4<f32> {
  if (SIGMOID == 1u) { return 1.0 / (1.0 + exp(-x)); }
  return exp(x - whole.peak) / whole.sum;
}

// Stores the probabilities of the class at place `c` of those that are bound.
fn store(c: u32, at: u32, probability: vec4<f32>) {
  if (params.first_class + c < params.classes) {
    let o = (c * params.all_rows + params.row0) * params.words + at;
    var p = probability;
    if (params.add == 1u) { p += maps[o]; }
    maps[o] = p * params.scale;
  }
}

fn store_block(c: u32, at: u32, p: Four) {
  store(c, at, p.a);
  store(c + 1u, at, p.b);
  store(c + 2u, at, p.c);
  store(c + 3u, at, p.d);
}

// Classes of a single block, whose exponentials serve their sum as well.
fn store_alone(at: u32, f: Four) {
  let peak = max(max(f.a, f.b), max(f.c, f.d));
  let e = Four(exp(f.a - peak), exp(f.b - peak), exp(f.c - peak), exp(f.d - peak));
  let sum = e.a + e.b + e.c + e.d;
  store_block(0u, at, Four(e.a / sum, e.b / sum, e.c / sum, e.d / sum));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let word = t % params.words;
  let begin = t / params.words * ROWS;
  let end = min(begin + ROWS, params.rows);
  let here = places_of(word);
  var scored = row_of(begin);
  for (var row = begin; row < end; row++) {
    let at = row * params.words + word;
    var f = classes_of(scored, 0u, params.first_class, here);
    if (SIGMOID == 0u && params.classes <= 4u) {
      store_alone(at, f);
    } else {
      var whole = nothing();
      if (SIGMOID == 0u) { whole = whole_of(at, scored, f, here); }
      for (var b = 0u; b < params.blocks; b++) {
        // the first block is there already
        if (b > 0u) { f = classes_of(scored, b, params.first_class + 4u * b, here); }
        let p = Four(probability(f.a, whole), probability(f.b, whole), probability(f.c, whole), probability(f.d, whole));
        store_block(4u * b, at, p);
      }
    }
    scored = next_row(scored);
  }
}
