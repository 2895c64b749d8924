// Convolution with 1 or 3 taps, stride 1 or 2 per axis and any leading padding, by cooperative matrices (matrix units of the adapter).
//
//   y[n,o,d,h,w] = b[o] + sum_{i,kd,kh,kw} w[o,i,kd,kh,kw] * load(x)[n,i,d*SD+kd-pd, h*SH+kh-ph, w*SW+kw-pw]
//
// The load is zero outside the source. With TRANSPOSE the weights are those of the transposed product with mirrored taps: the input
// gradient of a convolution of stride 1.
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in conv.wgsl
//   out [splits, N, OB, OD, OH, OW], splits > 1 where conv_sum.wgsl adds up what parts of the input blocks make
// A workgroup makes TD planes of TH x TW outputs for COLUMNS*OUT*SIDE output channels. For STEPS*SIDE input channels and a plane of taps at a time
// it stages the loaded planes that these read, a voxel a row, and the weights of TAPS taps at a time. A matrix has SIDE outputs one after another
// of a plane, in lines of PITCH; for a tap its factor begins at that tap's voxel and has a row every SW voxels. Where all strides along H and W
// are 1, PITCH is the width of what is staged, so that a matrix may run on from a line to the next; otherwise it is a multiple of SIDE.
// What lies beyond a line's TW outputs or a plane's TH lines is made of any voxels and thrown away.
// ROWS x COLUMNS jobs share the products out: a subgroup takes one job at a time, VOX x OUT matrices of SIDE x SIDE outputs. Any number of
// subgroups makes all jobs; as many as there are jobs make them in one round. Sums are f32; with BITS 16 what is multiplied is rounded to f16,
// which SIDE and `Element` must fit: see `matrices` in specialise.rs.
// Source: SPV_KHR_cooperative_matrix; implicit GEMM as in conv_staged.wgsl; jobs as in pointwise_coop.wgsl.
// needs cooperative matrices
enable wgpu_cooperative_matrix;
// naga holds `subgroup_id` to differ within a subgroup; every branch around a matrix operation is on it alone
diagnostic(off, derivative_uniformity);

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, cols: u32,
  id: u32, ih: u32, iw: u32, splits: u32,
  pd: u32, ph: u32, pw: u32, split_ins: u32,
  weight_in: u32, weight_out: u32, src_blocks: u32, coef_first: u32,
  out_blocks: u32, src_base: u32, aux_base: u32, out_base: u32,
}

override TRANSPOSE: bool = false;
override BIAS: bool = false;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

// of a matrix, as is BITS
const SIDE: u32 = 8u;
const BITS: u32 = 32u;
const ROWS: u32 = 4u;
const COLUMNS: u32 = 1u;
const VOX: u32 = 4u;
const OUT: u32 = 4u;
const STEPS: u32 = 1u;
// outputs along D, H, W
const TD: u32 = 1u;
const TH: u32 = 10u;
const TW: u32 = 10u;
const PITCH: u32 = 12u;
const KD: u32 = 3u;
const KH: u32 = 3u;
const KW: u32 = 3u;
const SD: u32 = 1u;
const SH: u32 = 1u;
const SW: u32 = 1u;
const TAPS: u32 = 3u;
const JOBS: u32 = ROWS * COLUMNS;
// outputs of a plane, with those that are thrown away
const PLANE: u32 = ROWS * VOX * SIDE / TD;
// in channels
const TILE_OUT: u32 = COLUMNS * OUT * SIDE;
const DEPTH: u32 = STEPS * SIDE;
// what is staged of a plane
const HEIGHT: u32 = (TH - 1u) * SH + KH;
const WIDTH: u32 = (TW - 1u) * SW + KW;
const BOX: u32 = TD * HEIGHT * WIDTH;
// where what the last matrix reads ends
const LAST: u32 = PLANE - SIDE;
const END: u32 = (TD - 1u) * HEIGHT * WIDTH + (LAST / PITCH * SH + KH - 1u) * WIDTH + LAST % PITCH * SW + (SIDE - 1u) * SW + KW;
// rows in workgroup memory are 16 bytes longer, so that neighbours lie in different banks
const INPUT_ROW: u32 = DEPTH + 128u / BITS;
const WEIGHT_ROW: u32 = TILE_OUT + 128u / BITS;

alias Element = f32;
alias Left = coop_mat8x8<f32, A>;
alias Right = coop_mat8x8<f32, B>;
alias Sum = coop_mat8x8<f32, C>;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load

// a row a voxel, a column an input channel
var<workgroup> staged: array<Element, max(BOX, END) * INPUT_ROW>;
// a row an input channel of a tap, a column an output channel
var<workgroup> weights: array<Element, TAPS * DEPTH * WEIGHT_ROW>;
// of every job a matrix, a row a voxel
var<workgroup> results: array<f32, JOBS * SIDE * SIDE>;

// The planes that begin at `origin`, of the input blocks from `i0` to `end`, beyond which what counts is zero.
fn stage_input(n: u32, origin: vec3<u32>, i0: u32, end: u32, lane: u32) {
  let pad = vec3<u32>(params.pd, params.ph, params.pw);
  let size = vec3<u32>(params.id, params.ih, params.iw);
  let stored = size / vec3<u32>(UD, UH, UW);
  for (var s = lane; s < DEPTH / 4u * BOX; s += WG) {
    let v = s % BOX;
    let i = i0 + s / BOX;
    let at = origin + vec3<u32>(v / (HEIGHT * WIDTH) * SD, v / WIDTH % HEIGHT, v % WIDTH);
    let inside = all(at >= pad) && all(at < size + pad);
    let source = (clamp(at, pad, size + pad - 1u) - pad) / vec3<u32>(UD, UH, UW);
    let source_block = n * params.src_blocks + min(i, params.ins - 1u);
    let place = ((source_block * stored.x + source.x) * stored.y + source.y) * stored.z + source.z;
    let loaded = load(place, load_coef(params.coef_first + source_block));
    let x = select(vec4<f32>(0.0), loaded, inside && i < end);
    let row = v * INPUT_ROW + s / BOX * 4u;
    // unroll
    for (var j = 0u; j < 4u; j++) { staged[row + j] = Element(x[j]); }
  }
}

// The weights of the TAPS taps from `first` on.
fn stage_weights(tile: u32, i0: u32, first: u32, lane: u32) {
  for (var s = lane; s < TAPS * DEPTH * TILE_OUT / 16u; s += WG) {
    let tap = s % TAPS;
    let o = s / TAPS % (TILE_OUT / 4u);
    let row = s / TAPS / (TILE_OUT / 4u) * 4u;
    let i = min(i0 + row / 4u, params.ins - 1u);
    let block = min(tile * (TILE_OUT / 4u) + o, params.outs - 1u);
    var m: mat4x4<f32>;
    if (TRANSPOSE) {
      m = transpose(weight[((params.weight_out + i) * params.cols + params.weight_in + block + 1u) * (KD * KH * KW) - 1u - first - tap]);
    } else {
      m = weight[((params.weight_out + block) * params.cols + params.weight_in + i) * (KD * KH * KW) + first + tap];
    }
    let place = (tap * DEPTH + row) * WEIGHT_ROW + o * 4u;
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
  let tile = t % params.tiles; t = t / params.tiles;
  let boxes_w = (params.ow + TW - 1u) / TW;
  let boxes_h = (params.oh + TH - 1u) / TH;
  let boxes_d = (params.od + TD - 1u) / TD;
  let w0 = t % boxes_w * TW; t = t / boxes_w;
  let h0 = t % boxes_h * TH; t = t / boxes_h;
  let d0 = t % boxes_d * TD; t = t / boxes_d;
  let split = t % params.splits; t = t / params.splits;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  let begin = split * params.split_ins;
  let end = min(params.ins, begin + params.split_ins);
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
    for (var i0 = begin; i0 < end; i0 += DEPTH / 4u) {
      for (var kd = 0u; kd < KD; kd++) {
        stage_input(n, vec3<u32>(d0 * SD + kd, h0 * SH, w0 * SW), i0, end, lane);
        for (var tap = 0u; tap < KH * KW; tap += TAPS) {
          stage_weights(tile, i0, kd * (KH * KW) + tap, lane);
          workgroupBarrier();
          if (job < JOBS) {
            for (var k = 0u; k < TAPS * STEPS; k++) {
              let kh = (tap + k / STEPS) / KW;
              let kw = (tap + k / STEPS) % KW;
              var right: array<Right, OUT>;
              // unroll
              for (var o = 0u; o < OUT; o++) { right[o] = coopLoadT<Right>(&weights[k * SIDE * WEIGHT_ROW + (column * OUT + o) * SIDE], WEIGHT_ROW); }
              // unroll
              for (var v = 0u; v < VOX; v++) {
                let made = (row * VOX + v) * SIDE;
                let line = made / PLANE * HEIGHT + made % PLANE / PITCH * SH + kh;
                let voxel = line * WIDTH + made % PLANE % PITCH * SW + kw;
                let left = coopLoadT<Left>(&staged[voxel * INPUT_ROW + k % STEPS * SIDE], SW * INPUT_ROW);
                // unroll
                for (var o = 0u; o < OUT; o++) { y[v][o] = coopMultiplyAdd(left, right[o], y[v][o]); }
              }
            }
          }
          workgroupBarrier();
        }
      }
    }
    let size = params.od * params.oh * params.ow;
    // unroll
    for (var v = 0u; v < VOX; v++) {
      // unroll
      for (var o = 0u; o < OUT; o++) {
        if (job < JOBS) { coopStoreT(y[v][o], &results[job * SIDE * SIDE], SIDE); }
        workgroupBarrier();
        for (var s = lane; s < JOBS * SIDE * SIDE / 4u; s += WG) {
          let made = s / (SIDE * SIDE / 4u);
          let block = tile * (TILE_OUT / 4u) + (made % COLUMNS * OUT + o) * (SIDE / 4u) + s / SIDE % (SIDE / 4u);
          let start = (made / COLUMNS * VOX + v) * SIDE;
          let place = start % PLANE + s % SIDE;
          let d = d0 + start / PLANE;
          let h = h0 + place / PITCH;
          let w = w0 + place % PITCH;
          let mine = made >= first && made < first + subgroups;
          let within = place / PITCH < TH && place % PITCH < TW && d < params.od && h < params.oh && w < params.ow;
          if (mine && within && t < params.n && block < params.outs) {
            let at = (made * SIDE + s % SIDE) * SIDE + s / SIDE % (SIDE / 4u) * 4u;
            var sum = vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
            let target_index = params.out_base + ((split * params.n + n) * params.out_blocks + block) * size + (d * params.oh + h) * params.ow + w;
            if (BIAS) { sum = sum + bias[params.weight_out + block]; }
            if (ACC) { sum = sum + out[target_index]; }
            out[target_index] = sum;
          }
        }
        workgroupBarrier();
      }
    }
  }
}
