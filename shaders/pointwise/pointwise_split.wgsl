// Pointwise (1x1x1) convolution, stride 1, and its input gradient, with the sum over inputs shared out: for few voxels of many
// channels, where a lane alone would walk long and most of an adapter would idle.
//
//   y[n,o,v] = b[o] + sum_i w[o,i] * load(x)[n,i,v]           (TRANSPOSE: sum_o w[o,i] * load(dy)[n,o,v])
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in pointwise.wgsl
// A workgroup makes LANES * VOX voxels of OUT output blocks. Each of SLICES rows of LANES lanes sums every SLICES-th input block, STEP of
// them at a time, whose loads are under way together; the rows' sums are added through workgroup memory, one after another: the order
// is fixed, results repeat to the bit. A row knows its number from a loop, so that a compiler sees that all its lanes read the same weights: they
// go to scalar registers on GPUs that have some.
// Source: split-K matrix products.

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

const VOX: u32 = 1u;
const OUT: u32 = 2u;
// lanes along voxels, and rows of them along input blocks
const LANES: u32 = 64u;
const SLICES: u32 = 4u;
// input blocks that a lane loads at a time, and whether every row has whole steps
const STEP: u32 = 4u;
const EVEN: u32 = 0u;
const TILE_VOX: u32 = LANES * VOX;
// outputs of a workgroup
const OUTPUTS: u32 = TILE_VOX * OUT;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import source_voxel

var<workgroup> sums: array<vec4<f32>, SLICES * OUTPUTS>;

@compute @workgroup_size(LANES * SLICES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let tile = t % params.tiles; t = t / params.tiles;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  let slice = lane / LANES;
  let first = group * TILE_VOX + lane % LANES;
  var at: array<u32, VOX>;
  var y: array<array<vec4<f32>, OUT>, VOX>;
  // unroll
  for (var j = 0u; j < VOX; j++) {
    at[j] = source_voxel(min(first + j * LANES, params.voxels - 1u), vec3<u32>(UD, UH, UW));
    // unroll
    for (var o = 0u; o < OUT; o++) { y[j][o] = vec4<f32>(0.0); }
  }
  for (var row = 0u; row < SLICES; row++) {
    if (row == slice) {
      for (var begin = row; begin < params.ins; begin += SLICES * STEP) {
        var x: array<array<vec4<f32>, VOX>, STEP>;
        // unroll
        for (var r = 0u; r < STEP; r++) {
          let i = begin + r * SLICES;
          let source_block = n * params.src_blocks + min(i, params.ins - 1u);
          let c = load_coef(params.coef_first + source_block);
          // unroll
          for (var j = 0u; j < VOX; j++) {
            let value = load(source_block * params.src_voxels + at[j], c);
            x[r][j] = select(vec4<f32>(0.0), value, EVEN == 1u || i < params.ins);
          }
        }
        // unroll
        for (var r = 0u; r < STEP; r++) {
          let i = min(begin + r * SLICES, params.ins - 1u);
          // unroll
          for (var o = 0u; o < OUT; o++) {
            let block = min(tile * OUT + o, params.outs - 1u);
            if (TRANSPOSE) {
              let m = weight[(params.weight_out + i) * params.cols + params.weight_in + block];
              // unroll
              for (var j = 0u; j < VOX; j++) { y[j][o] = y[j][o] + x[r][j] * m; }
            } else {
              let m = weight[(params.weight_out + block) * params.cols + params.weight_in + i];
              // unroll
              for (var j = 0u; j < VOX; j++) { y[j][o] = y[j][o] + fma(m[0], vec4<f32>(x[r][j].x), fma(m[1], vec4<f32>(x[r][j].y), fma(m[2], vec4<f32>(x[r][j].z), m[3] * x[r][j].w))); }
            }
          }
        }
      }
    }
  }
  // unroll
  for (var j = 0u; j < VOX; j++) {
    // unroll
    for (var o = 0u; o < OUT; o++) { sums[slice * OUTPUTS + (o * VOX + j) * LANES + lane % LANES] = y[j][o]; }
  }
  // the bias of a lane's output, chosen among those of the workgroup
  var b: vec4<f32>;
  if (BIAS) {
    // unroll
    for (var o = 0u; o < OUT; o++) {
      let own = bias[params.weight_out + min(tile * OUT + o, params.outs - 1u)];
      b = select(b, own, lane / TILE_VOX == o);
    }
  }
  workgroupBarrier();
  // an output a lane
  if (lane < OUTPUTS && t < params.n) {
    let block = tile * OUT + lane / TILE_VOX;
    let v = group * TILE_VOX + lane % TILE_VOX;
    if (v < params.voxels && block < params.outs) {
      var sum = sums[lane];
      for (var row = 1u; row < SLICES; row++) { sum += sums[row * OUTPUTS + lane]; }
      let target_index = params.out_base + (n * params.out_blocks + block) * params.voxels + v;
      if (BIAS) { sum = sum + b; }
      if (ACC) { sum = sum + out[target_index]; }
      out[target_index] = sum;
    }
  }
}
