// Pointwise (1x1x1) convolution, stride 1, and its input gradient, staged in workgroup memory: for many channels.
//
//   y[n,o,v] = b[o] + sum_i w[o,i] * load(x)[n,i,v]           (TRANSPOSE: sum_o w[o,i] * load(dy)[n,o,v])
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in pointwise.wgsl
// A workgroup of SIDE x SIDE threads makes SIDE*VOX voxels of SIDE*OUT output blocks. It stages STAGE blocks of loaded input and
// of weights at a time, so that each is read once a workgroup; a thread keeps VOX voxels times OUT output blocks in registers.
// Source: the tiled matrix product, as in Volkov, Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.

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

const VOX: u32 = 8u;
const OUT: u32 = 2u;
// input blocks that are staged at a time
const STAGE: u32 = 4u;
// lanes along voxels, and along output blocks
const SIDE: u32 = 8u;
const TILE_VOX: u32 = SIDE * VOX;
const TILE_OUT: u32 = SIDE * OUT;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import source_voxel

var<workgroup> staged: array<vec4<f32>, STAGE * TILE_VOX>;
var<workgroup> weights: array<mat4x4<f32>, STAGE * TILE_OUT>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let tile = t % params.tiles; t = t / params.tiles;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  let row = lane / SIDE;
  let column = lane % SIDE;
  var y: array<array<vec4<f32>, OUT>, VOX>;
  // unroll
  for (var j = 0u; j < VOX; j++) {
    // unroll
    for (var o = 0u; o < OUT; o++) { y[j][o] = vec4<f32>(0.0); }
  }
  for (var i0 = 0u; i0 < params.ins; i0 += STAGE) {
    for (var s = lane; s < STAGE * TILE_VOX; s += SIDE * SIDE) {
      let i = i0 + s / TILE_VOX;
      let at = source_voxel(min(group * TILE_VOX + s % TILE_VOX, params.voxels - 1u), vec3<u32>(UD, UH, UW));
      let source_block = n * params.src_blocks + min(i, params.ins - 1u);
      let x = load(source_block * params.src_voxels + at, load_coef(params.coef_first + source_block));
      staged[s] = select(vec4<f32>(0.0), x, i < params.ins);
    }
    for (var s = lane; s < STAGE * TILE_OUT; s += SIDE * SIDE) {
      let i = min(i0 + s / TILE_OUT, params.ins - 1u);
      let block = min(tile * TILE_OUT + s % TILE_OUT, params.outs - 1u);
      if (TRANSPOSE) {
        weights[s] = transpose(weight[(params.weight_out + i) * params.cols + params.weight_in + block]);
      } else {
        weights[s] = weight[(params.weight_out + block) * params.cols + params.weight_in + i];
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < STAGE; k++) {
      var x: array<vec4<f32>, VOX>;
      // unroll
      for (var j = 0u; j < VOX; j++) { x[j] = staged[k * TILE_VOX + j * SIDE + column]; }
      // unroll
      for (var o = 0u; o < OUT; o++) {
        let m = weights[k * TILE_OUT + o * SIDE + row];
        // unroll
        for (var j = 0u; j < VOX; j++) { y[j][o] = y[j][o] + fma(m[0], vec4<f32>(x[j].x), fma(m[1], vec4<f32>(x[j].y), fma(m[2], vec4<f32>(x[j].z), m[3] * x[j].w))); }
      }
    }
    workgroupBarrier();
  }
  // unroll
  for (var j = 0u; j < VOX; j++) {
    let v = group * TILE_VOX + j * SIDE + column;
    // unroll
    for (var o = 0u; o < OUT; o++) {
      let block = tile * TILE_OUT + o * SIDE + row;
      if (t < params.n && v < params.voxels && block < params.outs) {
        let target_index = params.out_base + (n * params.out_blocks + block) * params.voxels + v;
        if (BIAS) { y[j][o] = y[j][o] + bias[params.weight_out + block]; }
        if (ACC) { y[j][o] = y[j][o] + out[target_index]; }
        out[target_index] = y[j][o];
      }
    }
  }
}
