// Input gradient of the convolution of conv.wgsl (any stride, by parity).
//
//   dx[n,i,d,h,w] = sum_{o,kd,kh,kw} w[o,i,kd,kh,kw] * load(dy)[n,o,(d+pd-kd)/SD,(h+ph-kh)/SH,(w+pw-kw)/SW]
//
// where only taps that divide evenly and stay inside count.
// Bindings (vec4 = 4 channel lanes):
//   src, aux [N, SB, OD, OH, OW] and coef: the output gradient, loaded as in depthwise.wgsl with GRAD
//   weight [OB, cols, KD*KH*KW] mat4x4, out [N, IB, ID, IH, IW]
// A thread makes VOX (a multiple of SW) neighbours along W of LINES lines of one parity for OUT input blocks. Which of its taps along W meet which
// gradient is known when the loops are unrolled; along D and H it loops over the taps of its parity: a stride wastes nothing.
// PW is the leading padding along W. Source: the chain rule of conv.wgsl.

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, cols: u32,
  pd: u32, ph: u32, weight_in: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_out: u32,
  src_base: u32, aux_base: u32, out_base: u32,
}

override ACC: bool = false;
override KD: u32 = 3u;
override KH: u32 = 3u;
override SD: u32 = 1u;
override SH: u32 = 1u;
override WG: u32 = 64u;

const VOX: u32 = 2u;
const LINES: u32 = 1u;
const OUT: u32 = 4u;
const KW: u32 = 3u;
const SW: u32 = 1u;
const PW: u32 = 1u;
// gradients along W that a thread needs: from FIRST below w0/SW, ROW of them
const ROW: u32 = 4u;
const FIRST: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

// import load

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = (wg.x + wg.y * ng.x) * WG + lane;
  // positions of one parity are neighbours, so that neighbouring threads loop over the same taps
  let quad = t % params.quads; t = t / params.quads;
  let h_count = ((params.ih + SH - 1u) / SH + LINES - 1u) / LINES;
  let d_count = (params.id + SD - 1u) / SD;
  let h_at = t % h_count; t = t / h_count;
  let d_at = t % d_count; t = t / d_count;
  let h = h_at * LINES * SH + t % SH; t = t / SH;
  let d = d_at * SD + t % SD; t = t / SD;
  let tile = t % params.tiles; t = t / params.tiles;
  let n = t;
  if (n < params.n && h < params.ih && d < params.id) {
    let w0 = quad * VOX;
    let grad_size = params.od * params.oh * params.ow;
    var y: array<array<array<vec4<f32>, OUT>, VOX>, LINES>;
    // unroll
    for (var l = 0u; l < LINES; l++) {
      // unroll
      for (var j = 0u; j < VOX; j++) {
        // unroll
        for (var o = 0u; o < OUT; o++) { y[l][j][o] = vec4<f32>(0.0); }
      }
    }
    for (var i = 0u; i < params.ins; i++) {
      let source_block = n * params.src_blocks + i;
      let c = load_coef(params.coef_first + source_block);
      // only taps that meet a gradient: those of the position's own parity
      for (var kd = (d + params.pd) % SD; kd < KD; kd += SD) {
        let z = (d + params.pd - min(kd, d + params.pd)) / SD;
        if (d + params.pd >= kd && z < params.od) {
          for (var kh = (h + params.ph) % SH; kh < KH; kh += SH) {
            var x: array<array<vec4<f32>, ROW>, LINES>;
            // unroll
            for (var l = 0u; l < LINES; l++) {
              let reach = h + l * SH + params.ph;
              let row = (reach - min(kh, reach)) / SH;
              let row_inside = reach >= kh && row < params.oh;
              let start = source_block * grad_size + (z * params.oh + min(row, params.oh - 1u)) * params.ow;
              // unroll
              for (var q = 0u; q < ROW; q++) {
                let at = w0 / SW + q;
                let inside = row_inside && at >= FIRST && at < params.ow + FIRST;
                let column = clamp(at, FIRST, params.ow + FIRST - 1u) - FIRST;
                x[l][q] = select(vec4<f32>(0.0), load(start + column, c), inside);
              }
            }
            // unroll
            for (var o = 0u; o < OUT; o++) {
              let block = min(tile * OUT + o, params.outs - 1u);
              let taps = (((params.weight_out + i) * params.cols + params.weight_in + block) * KD + kd) * KH + kh;
              // unroll
              for (var kw = 0u; kw < KW; kw++) {
                let m = weight[taps * KW + kw];
                // unroll
                for (var l = 0u; l < LINES; l++) {
                  // unroll
                  for (var j = 0u; j < VOX; j++) {
                    // w0 is a multiple of SW: only j + PW - kw decides divisibility and place
                    if ((j + PW + FIRST * SW - kw) % SW == 0u) {
                      y[l][j][o] = y[l][j][o] + x[l][(j + PW + FIRST * SW - kw) / SW] * m;
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    let size = params.id * params.ih * params.iw;
    let start = params.out_base + (n * params.out_blocks + tile * OUT) * size + (d * params.ih + h) * params.iw + w0;
    // unroll
    for (var o = 0u; o < OUT; o++) {
      // unroll
      for (var l = 0u; l < LINES; l++) {
        // unroll
        for (var j = 0u; j < VOX; j++) {
          if (tile * OUT + o < params.outs && h + l * SH < params.ih && w0 + j < params.iw) {
            let at = start + o * size + l * SH * params.iw + j;
            var value = y[l][j][o];
            if (ACC) { value = value + out[at]; }
            out[at] = value;
          }
        }
      }
    }
  }
}
