// Weight gradient of the pointwise convolution by cooperative matrices (matrix units of the adapter), as partial sums.
//
//   partial[p,o,i] = sum over voxels v of part p of  load(dy)[n,o,v] * load(x)[n,i,v]
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = gradient for input lane j): as in pointwise_weight.wgsl
// A workgroup makes ROWS*OUT*SIDE output by COLUMNS*IN*SIDE input channels of one part of a sample's voxels, of which it stages
// STEPS*SIDE at a time. ROWS x COLUMNS jobs share the products out: a subgroup takes one job at a time, OUT x IN matrices of
// SIDE x SIDE weights. Any number of subgroups makes all jobs; as many as there are jobs make them in one round. Sums are f32;
// with BITS 16 what is multiplied is rounded to f16, which SIDE and `Element` must fit: see `factors` in specialise.rs.
// Each part has its own partial: no atomics, reproducible to the bit.
// Source: SPV_KHR_cooperative_matrix; pointwise_weight.wgsl.
// needs cooperative matrices
enable wgpu_cooperative_matrix;
// naga holds `subgroup_id` to differ within a subgroup; every branch around a matrix operation is on it alone
diagnostic(off, derivative_uniformity);

struct Params {
  voxels: u32, ins: u32, outs: u32,
  parts: u32, in_tiles: u32, out_tiles: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
  h: u32, w: u32, per_sample: u32, run: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

// of a matrix, as is BITS
const SIDE: u32 = 8u;
const BITS: u32 = 32u;
const ROWS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OUT: u32 = 4u;
const IN: u32 = 4u;
const STEPS: u32 = 2u;
const JOBS: u32 = ROWS * COLUMNS;
// in blocks of four channels
const TILE_OUT: u32 = ROWS * OUT * SIDE / 4u;
const TILE_IN: u32 = COLUMNS * IN * SIDE / 4u;
// voxels
const DEPTH: u32 = STEPS * SIDE;
// rows in workgroup memory are 16 bytes longer, so that neighbours lie in different banks
const GRAD_ROW: u32 = TILE_OUT * 4u + 128u / BITS;
const INPUT_ROW: u32 = TILE_IN * 4u + 128u / BITS;
const RESULT_ROW: u32 = OUT * SIDE;

// import matrices

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<mat4x4<f32>>;

// import load_grad
// import source_voxel

// a row a voxel, a column an output channel
var<workgroup> grads: array<Element, DEPTH * GRAD_ROW>;
// a row a voxel, a column an input channel
var<workgroup> inputs: array<Element, DEPTH * INPUT_ROW>;
// of every job SIDE input channels, a row each, a column an output channel
var<workgroup> results: array<f32, JOBS * SIDE * RESULT_ROW>;

// what lies at or beyond `end` counts as zero
fn stage(n: u32, o0: u32, i0: u32, v0: u32, end: u32, lane: u32) {
  for (var s = lane; s < DEPTH * TILE_OUT; s += WG) {
    let v = v0 + s % DEPTH;
    let block = n * params.grad_blocks + min(o0 + s / DEPTH, params.outs - 1u);
    let loaded = load_grad(block * params.voxels + min(v, params.voxels - 1u), load_grad_coef(block));
    let u = select(vec4<f32>(0.0), loaded, v < end);
    let place = s % DEPTH * GRAD_ROW + s / DEPTH * 4u;
    // unroll
    for (var j = 0u; j < 4u; j++) { grads[place + j] = Element(u[j]); }
  }
  for (var s = lane; s < DEPTH * TILE_IN; s += WG) {
    let v = v0 + s % DEPTH;
    let block = n * params.src_blocks + min(i0 + s / DEPTH, params.ins - 1u);
    let loaded = load(block * params.src_voxels + source_voxel(min(v, params.voxels - 1u), vec3<u32>(UD, UH, UW)), load_coef(block));
    let x = select(vec4<f32>(0.0), loaded, v < end);
    let place = s % DEPTH * INPUT_ROW + s / DEPTH * 4u;
    // unroll
    for (var j = 0u; j < 4u; j++) { inputs[place + j] = Element(x[j]); }
  }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
  var t = wg.x + wg.y * ng.x;
  let part = t % params.parts; t = t / params.parts;
  let i0 = t % params.in_tiles * TILE_IN; t = t / params.in_tiles;
  // workgroups beyond the last tile compute along and write nothing
  let o0 = t * TILE_OUT;
  let n = part / params.per_sample;
  let begin = part % params.per_sample * params.run;
  let end = min(begin + params.run, params.voxels);
  for (var first = 0u; first < JOBS; first += subgroups) {
    let job = first + subgroup;
    let row = job / COLUMNS;
    let column = job % COLUMNS;
    var y: array<array<Sum, OUT>, IN>;
    // unroll
    for (var i = 0u; i < IN; i++) {
      // unroll
      for (var o = 0u; o < OUT; o++) { y[i][o] = Sum(); }
    }
    for (var v0 = begin; v0 < end; v0 += DEPTH) {
      stage(n, o0, i0, v0, end, lane);
      workgroupBarrier();
      if (job < JOBS) {
        for (var k = 0u; k < DEPTH; k += SIDE) {
          var left: array<Left, OUT>;
          // unroll
          for (var o = 0u; o < OUT; o++) { left[o] = coopLoad<Left>(&grads[k * GRAD_ROW + (row * OUT + o) * SIDE], GRAD_ROW); }
          // unroll
          for (var i = 0u; i < IN; i++) {
            let right = coopLoadT<Right>(&inputs[k * INPUT_ROW + (column * IN + i) * SIDE], INPUT_ROW);
            // unroll
            for (var o = 0u; o < OUT; o++) { y[i][o] = coopMultiplyAdd(left[o], right, y[i][o]); }
          }
        }
      }
      workgroupBarrier();
    }
    // unroll
    for (var i = 0u; i < IN; i++) {
      if (job < JOBS) {
        // unroll
        for (var o = 0u; o < OUT; o++) { coopStore(y[i][o], &results[job * SIDE * RESULT_ROW + o * SIDE], RESULT_ROW); }
      }
      workgroupBarrier();
      // a block of four output and four input channels each
      for (var s = lane; s < JOBS * (SIDE / 4u) * (RESULT_ROW / 4u); s += WG) {
        let in_block = s % (SIDE / 4u);
        let out_block = s / (SIDE / 4u) % (RESULT_ROW / 4u);
        let made = s / (SIDE / 4u) / (RESULT_ROW / 4u);
        let block = o0 + made / COLUMNS * (RESULT_ROW / 4u) + out_block;
        let input = i0 + (made % COLUMNS * IN + i) * (SIDE / 4u) + in_block;
        let mine = made >= first && made < first + subgroups;
        if (mine && t < params.out_tiles && block < params.outs && input < params.ins) {
          let place = (made * SIDE + in_block * 4u) * RESULT_ROW + out_block * 4u;
          var m: mat4x4<f32>;
          // unroll
          for (var j = 0u; j < 4u; j++) {
            let start = place + j * RESULT_ROW;
            m[j] = vec4<f32>(results[start], results[start + 1u], results[start + 2u], results[start + 3u]);
          }
          partial[((params.part_first + part) * params.all_outs + params.out_first + block) * params.all_ins + params.in_first + input] = m;
        }
      }
      workgroupBarrier();
    }
  }
}
