// Pointwise (1x1x1) convolution, stride 1, and its input gradient, by cooperative matrices (matrix units of the adapter).
//
//   y[n,o,v] = b[o] + sum_i w[o,i] * load(x)[n,i,v]           (TRANSPOSE: sum_o w[o,i] * load(dy)[n,o,v])
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in pointwise.wgsl
// A workgroup stages STEPS*SIDE loaded input channels of ROWS*VOX*SIDE voxels, and their weights, and makes COLUMNS*OUT*SIDE
// output channels. ROWS x COLUMNS jobs share the products out: a subgroup takes one job at a time, VOX x OUT matrices of
// SIDE x SIDE outputs. Any number of subgroups makes all jobs; as many as there are jobs make them in one round. Sums are f32;
// with BITS 16 what is multiplied is rounded to f16, which SIDE and `Element` must fit: see `factors` in specialise.rs.
// Source: SPV_KHR_cooperative_matrix; the tiled matrix product of pointwise_shared.wgsl.
// needs cooperative matrices
enable wgpu_cooperative_matrix;
// naga holds `subgroup_id` to differ within a subgroup; every branch around a matrix operation is on it alone
diagnostic(off, derivative_uniformity);

struct Params {
  n: u32, voxels: u32, ins: u32, outs: u32,
  groups: u32, tiles: u32, cols: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_in: u32,
  src_base: u32, aux_base: u32, out_base: u32, weight_out: u32,
  h: u32, w: u32,
}

override TRANSPOSE: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

// of a matrix, as is BITS
const SIDE: u32 = 8u;
const BITS: u32 = 32u;
const ROWS: u32 = 2u;
const COLUMNS: u32 = 2u;
const VOX: u32 = 4u;
const OUT: u32 = 4u;
const STEPS: u32 = 2u;
const JOBS: u32 = ROWS * COLUMNS;
const TILE_VOX: u32 = ROWS * VOX * SIDE;
// in channels
const TILE_OUT: u32 = COLUMNS * OUT * SIDE;
const DEPTH: u32 = STEPS * SIDE;
// rows in workgroup memory are 16 bytes longer, so that neighbours lie in different banks
const INPUT_ROW: u32 = DEPTH + 128u / BITS;
const WEIGHT_ROW: u32 = TILE_OUT + 128u / BITS;
const RESULT_ROW: u32 = OUT * SIDE;

// import matrices

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import source_voxel

// a row a voxel, a column an input channel
var<workgroup> staged: array<Element, TILE_VOX * INPUT_ROW>;
// a row an input channel, a column an output channel
var<workgroup> weights: array<Element, DEPTH * WEIGHT_ROW>;
// of every job SIDE voxels, a row each
var<workgroup> results: array<f32, JOBS * SIDE * RESULT_ROW>;

fn stage_input(n: u32, group: u32, i0: u32, lane: u32) {
  for (var s = lane; s < DEPTH / 4u * TILE_VOX; s += WG) {
    let v = s % TILE_VOX;
    let i = i0 + s / TILE_VOX;
    let at = source_voxel(min(group * TILE_VOX + v, params.voxels - 1u), vec3<u32>(UD, UH, UW));
    let source_block = n * params.src_blocks + min(i, params.ins - 1u);
    let loaded = load(source_block * params.src_voxels + at, load_coef(params.coef_first + source_block));
    let x = select(vec4<f32>(0.0), loaded, i < params.ins);
    let place = v * INPUT_ROW + s / TILE_VOX * 4u;
    // unroll
    for (var j = 0u; j < 4u; j++) { staged[place + j] = Element(x[j]); }
  }
}

fn stage_weights(tile: u32, i0: u32, lane: u32) {
  for (var s = lane; s < DEPTH * TILE_OUT / 16u; s += WG) {
    let o = s % (TILE_OUT / 4u);
    let i = min(i0 + s / (TILE_OUT / 4u), params.ins - 1u);
    let block = min(tile * (TILE_OUT / 4u) + o, params.outs - 1u);
    var m: mat4x4<f32>;
    if (TRANSPOSE) {
      m = transpose(weight[(params.weight_out + i) * params.cols + params.weight_in + block]);
    } else {
      m = weight[(params.weight_out + block) * params.cols + params.weight_in + i];
    }
    let place = s / (TILE_OUT / 4u) * 4u * WEIGHT_ROW + o * 4u;
    // unroll
    for (var j = 0u; j < 4u; j++) {
      // unroll
      for (var r = 0u; r < 4u; r++) { weights[place + j * WEIGHT_ROW + r] = Element(m[j][r]); }
    }
  }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let tile = t % params.tiles; t = t / params.tiles;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  for (var first = 0u; first < JOBS; first += subgroups) {
    let job = first + subgroup;
    let row = job / COLUMNS;
    let column = job % COLUMNS;
    var y: array<array<Sum, OUT>, VOX>;
    // unroll
    for (var v = 0u; v < VOX; v++) {
      // unroll
      for (var o = 0u; o < OUT; o++) { y[v][o] = Sum(); }
    }
    for (var i0 = 0u; i0 < params.ins; i0 += DEPTH / 4u) {
      stage_input(n, group, i0, lane);
      stage_weights(tile, i0, lane);
      workgroupBarrier();
      if (job < JOBS) {
        for (var k = 0u; k < DEPTH; k += SIDE) {
          var right: array<Right, OUT>;
          // unroll
          for (var o = 0u; o < OUT; o++) { right[o] = coopLoadT<Right>(&weights[k * WEIGHT_ROW + (column * OUT + o) * SIDE], WEIGHT_ROW); }
          // unroll
          for (var v = 0u; v < VOX; v++) {
            let left = coopLoadT<Left>(&staged[(row * VOX + v) * SIDE * INPUT_ROW + k], INPUT_ROW);
            // unroll
            for (var o = 0u; o < OUT; o++) { y[v][o] = coopMultiplyAdd(left, right[o], y[v][o]); }
          }
        }
      }
      workgroupBarrier();
    }
    // unroll
    for (var v = 0u; v < VOX; v++) {
      if (job < JOBS) {
        // unroll
        for (var o = 0u; o < OUT; o++) { coopStoreT(y[v][o], &results[job * SIDE * RESULT_ROW + o * SIDE], RESULT_ROW); }
      }
      workgroupBarrier();
      for (var s = lane; s < JOBS * SIDE * RESULT_ROW / 4u; s += WG) {
        let place = s / SIDE;
        let made = place / (RESULT_ROW / 4u);
        let block = tile * (TILE_OUT / 4u) + made % COLUMNS * (RESULT_ROW / 4u) + place % (RESULT_ROW / 4u);
        let voxel = group * TILE_VOX + (made / COLUMNS * VOX + v) * SIDE + s % SIDE;
        let mine = made >= first && made < first + subgroups;
        if (mine && t < params.n && voxel < params.voxels && block < params.outs) {
          let begin = (made * SIDE + s % SIDE) * RESULT_ROW + place % (RESULT_ROW / 4u) * 4u;
          var sum = vec4<f32>(results[begin], results[begin + 1u], results[begin + 2u], results[begin + 3u]);
          let target_index = params.out_base + (n * params.out_blocks + block) * params.voxels + voxel;
          if (BIAS) { sum = sum + bias[params.weight_out + block]; }
          if (ACC) { sum = sum + out[target_index]; }
          out[target_index] = sum;
        }
      }
      workgroupBarrier();
    }
  }
}
