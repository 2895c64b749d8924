// Weight gradient of the pointwise convolution, a split-K matrix product, as partial sums, from chunks in workgroup memory.
//
//   partial[p,o,i] = sum over voxels v of part p of  load(dy)[n,o,v] * load(x)[n,i,v]
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = gradient for input lane j): as in pointwise_weight.wgsl, but
//   partial [parts, OB, IB, 4], one vector an input lane
// A workgroup owns ROWS * OUT output blocks, COLUMNS * IN input blocks and one part of a sample's voxels, CHUNK of which it loads at
// a time, neighbouring lanes neighbouring voxels, each lane always of one block. Teams of SHARES threads own OUT x IN blocks each and
// share the voxels of a chunk out; a tree adds their sums up in the end: no atomics, reproducible to the bit.
// Dispatch: a workgroup for each part, tile of input blocks and tile of output blocks, parts fastest.
// Source: the chain rule of pointwise.wgsl.

struct Params {
  voxels: u32, ins: u32, outs: u32,
  parts: u32, in_tiles: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
  h: u32, w: u32, per_sample: u32, run: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const OUT: u32 = 2u;
const IN: u32 = 2u;
const ROWS: u32 = 2u;
const COLUMNS: u32 = 2u;
const SHARES: u32 = 32u;
const CHUNK: u32 = 128u;
// vectors that a lane loads of a chunk
const INPUTS: u32 = 4u;
const GRADS: u32 = 4u;

// in blocks of four channels
const TILE_OUT: u32 = ROWS * OUT;
const TILE_IN: u32 = COLUMNS * IN;
const THREADS: u32 = ROWS * COLUMNS * SHARES;
// lanes that load one block
const PER_INPUT: u32 = THREADS / TILE_IN;
const PER_GRAD: u32 = THREADS / TILE_OUT;
const FIRST_GRAD: u32 = TILE_IN * CHUNK;
// holds a chunk, and in the end four columns of weights of each thread
const MEMORY: u32 = max((TILE_IN + TILE_OUT) * CHUNK, 4u * THREADS);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// import load_grad
// import source_voxel

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let part = t % params.parts; t = t / params.parts;
  let i0 = t % params.in_tiles * TILE_IN; t = t / params.in_tiles;
  // workgroups beyond the last tile compute along and write nothing
  let o0 = t * TILE_OUT;
  let n = part / params.per_sample;
  let team = lane / SHARES;
  let share = lane % SHARES;
  let row = team / COLUMNS * OUT;
  let column = team % COLUMNS * IN;
  let source_block = n * params.src_blocks + min(i0 + lane / PER_INPUT, params.ins - 1u);
  let grad_block = n * params.grad_blocks + min(o0 + lane / PER_GRAD, params.outs - 1u);
  var s: array<array<mat4x4<f32>, IN>, OUT>;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var i = 0u; i < IN; i++) { s[o][i] = mat4x4<f32>(); }
  }
  let begin = part % params.per_sample * params.run;
  let end = min(begin + params.run, params.voxels);
  for (var v0 = begin; v0 < end; v0 += CHUNK) {
    // read for every chunk: kept, they would cost registers
    let c = load_coef(source_block);
    let g = load_grad_coef(grad_block);
    // unroll
    for (var r = 0u; r < INPUTS; r++) {
      // what lies beyond the end meets gradients of zero
      let at = r * PER_INPUT + lane % PER_INPUT;
      let voxel = source_voxel(min(v0 + at, params.voxels - 1u), vec3<u32>(UD, UH, UW));
      memory[lane / PER_INPUT * CHUNK + at] = load(source_block * params.src_voxels + voxel, c);
    }
    // unroll
    for (var r = 0u; r < GRADS; r++) {
      let at = r * PER_GRAD + lane % PER_GRAD;
      let loaded = load_grad(grad_block * params.voxels + min(v0 + at, params.voxels - 1u), g);
      memory[FIRST_GRAD + lane / PER_GRAD * CHUNK + at] = select(vec4<f32>(0.0), loaded, v0 + at < end);
    }
    workgroupBarrier();
    for (var v = share; v < CHUNK; v += SHARES) {
      var x: array<vec4<f32>, IN>;
      // unroll
      for (var i = 0u; i < IN; i++) { x[i] = memory[(column + i) * CHUNK + v]; }
      // unroll
      for (var o = 0u; o < OUT; o++) {
        let u = memory[FIRST_GRAD + (row + o) * CHUNK + v];
        // unroll
        for (var i = 0u; i < IN; i++) {
          s[o][i][0] = fma(u, vec4<f32>(x[i].x), s[o][i][0]);
          s[o][i][1] = fma(u, vec4<f32>(x[i].y), s[o][i][1]);
          s[o][i][2] = fma(u, vec4<f32>(x[i].z), s[o][i][2]);
          s[o][i][3] = fma(u, vec4<f32>(x[i].w), s[o][i][3]);
        }
      }
    }
    workgroupBarrier();
  }
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var i = 0u; i < IN; i++) {
      // unroll
      for (var j = 0u; j < 4u; j++) { memory[j * THREADS + lane] = s[o][i][j]; }
      workgroupBarrier();
      for (var half = SHARES / 2u; half > 0u; half /= 2u) {
        if (share < half) {
          // unroll
          for (var j = 0u; j < 4u; j++) { memory[j * THREADS + lane] += memory[j * THREADS + lane + half]; }
        }
        workgroupBarrier();
      }
      let out = o0 + row + o;
      let own = i0 + column + i;
      if (share < min(SHARES, 4u) && out < params.outs && own < params.ins) {
        let block = ((params.part_first + part) * params.all_outs + params.out_first + out) * params.all_ins + params.in_first + own;
        for (var j = share; j < 4u; j += min(SHARES, 4u)) { partial[block * 4u + j] = memory[j * THREADS + team * SHARES]; }
      }
      workgroupBarrier();
    }
  }
}
