// What each voxel is: the class of the largest score, the lowest class of equals; or of regions the value of the last one whose
// score is above a threshold. Four voxels along W a word.
//
// Bindings (K classes in CB blocks of four lanes)
//   scores  vec4<f32> [planes, CB, height, columns]   packed class scores, interpolated along W on the way; padding lanes are
//           never chosen. With the section MAPS vec4<f32> [K, rows, words]: maps of four voxels a vector.
//   places  vec4<f32> [words, 2]        as columns.wgsl has them; not with MAPS
//   labels  u32 [row0 + rows, words]    a byte a voxel; the bytes behind a row's last voxel mean nothing
//   values  u32 [K]                     with the section REGIONS: what is written for each region
//   best    vec4<f32> [rows, words]     with the section MORE: the largest score so far
// Where scores come in several groups of classes, MORE goes on from what the groups before found; the first class of the first
// group is 0. One thread: four voxels of `ROWS` rows.
// Dispatch: ceil(words * ceil(rows / ROWS) / WG) groups, folded into x and y.
// Source: the definition.

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
  threshold: f32,
}

override ROWS: u32 = 1u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
// section MAPS
// otherwise
@group(0) @binding(3) var<storage, read> places: array<vec4<f32>>;
// import columns
// end MAPS
// section REGIONS
@group(0) @binding(4) var<storage, read> values: array<u32>;
// end REGIONS
// section MORE
@group(0) @binding(5) var<storage, read_write> best: array<vec4<f32>>;
// end MORE

// Four voxels: their largest scores and their labels.
struct Found { score: vec4<f32>, label: vec4<u32> }

// section REGIONS
fn take(found: Found, x: vec4<f32>, k: u32) -> Found {
  return Found(found.score, select(found.label, vec4<u32>(values[k]), x > vec4<f32>(params.threshold)));
}
// otherwise
fn take(found: Found, x: vec4<f32>, k: u32) -> Found {
  let larger = x > found.score;
  return Found(select(found.score, x, larger), select(found.label, vec4<u32>(k), larger));
}
// end REGIONS

fn before(at: u32, o: u32) -> Found {
  var found = Found(vec4<f32>(-3.4e38), vec4<u32>(0u));
  // section MORE
  if (params.first_class > 0u) {
    found = Found(best[at], (vec4<u32>(labels[o]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
  }
  // end MORE
  return found;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let word = t % params.words;
  let begin = t / params.words * ROWS;
  let end = min(begin + ROWS, params.rows);
  // section MAPS
  // otherwise
  let here = places_of(word);
  var scored = row_of(begin);
  // end MAPS
  for (var row = begin; row < end; row++) {
    let at = row * params.words + word;
    let o = at + params.row0 * params.words;
    var found = before(at, o);
    // section MAPS
    let local_classes = min(params.classes - params.first_class, 4u * params.blocks);
    for (var k = 0u; k < local_classes; k++) {
      found = take(found, scores[params.base + k * params.rows * params.words + at], params.first_class + k);
    }
    // otherwise
    for (var b = 0u; b < params.blocks; b++) {
      let k = params.first_class + 4u * b;
      let f = classes_of(scored, b, k, here);
      found = take(found, f.a, k);
      found = take(found, f.b, k + 1u);
      found = take(found, f.c, k + 2u);
      found = take(found, f.d, k + 3u);
    }
    scored = next_row(scored);
    // end MAPS
    let bytes = found.label << vec4<u32>(0u, 8u, 16u, 24u);
    labels[o] = bytes.x | bytes.y | bytes.z | bytes.w;
    // section MORE
    best[at] = found.score;
    // end MORE
  }
}
