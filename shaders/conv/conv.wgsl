// Convolution with 1 or 3 taps and stride 1 or 2 per axis and any leading padding, as an implicit matrix product.
//
//   y[n,o,d,h,w] = b[o] + sum_{i,kd,kh,kw} w[o,i,kd,kh,kw] * load(x)[n,i,d*SD+kd-pd, h*SH+kh-ph, w*SW+kw-pw]
//
// The load is zero outside the source, which is also how trailing padding comes about.
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j):
//   src [N, SB, ID/UD, IH/UH, IW/UW], aux, coef: as in depthwise.wgsl (ID, IH, IW: the size that the taps see)
//   weight [OB, cols, KD*KH*KW] mat4x4, bias [OB], out [N, OB, OD, OH, OW]
// A thread makes LINES x VOX outputs along H and W for OUT output blocks; a row of ROW = (VOX-1)*SW+KW inputs serves all its taps.
// CIN is the number of lanes in use where the source has fewer than 4 channels. The inputs of BATCH rows of taps, which divide KH, are
// under way together; products of a row are summed before they join the sum.
// Source: implicit GEMM; padding and strides as in the published 3D U2-Net (down-samplers pad (0, 1)).

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, cols: u32,
  pd: u32, ph: u32, pw: u32, weight_in: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_out: u32,
  src_base: u32, aux_base: u32, out_base: u32, chunks: u32,
}

override BIAS: bool = true;
override ACC: bool = false;
override KD: u32 = 3u;
override KH: u32 = 3u;
override SD: u32 = 1u;
override SH: u32 = 1u;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const VOX: u32 = 2u;
const LINES: u32 = 1u;
const OUT: u32 = 4u;
const KW: u32 = 3u;
const SW: u32 = 1u;
const ROW: u32 = 4u;
const CIN: u32 = 4u;
const BATCH: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  // all of a workgroup make the same output blocks, so that they share the weights
  var t = wg.x + wg.y * ng.x;
  let tile = t % params.tiles; t = t / params.tiles;
  let chunk = t % params.chunks; t = t / params.chunks;
  let n = t;
  t = chunk * WG + lane;
  let quad = t % params.quads; t = t / params.quads;
  let lines = (params.oh + LINES - 1u) / LINES;
  let h = t % lines * LINES; t = t / lines;
  let d = t;
  if (n < params.n && d < params.od) {
    let w0 = quad * VOX;
    let sh = params.ih / UH;
    let sw = params.iw / UW;
    let source_size = (params.id / UD) * sh * sw;
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
      for (var kd = 0u; kd < KD; kd++) {
        let z = d * SD + kd;
        if (z >= params.pd && z < params.id + params.pd) {
          let plane = source_block * source_size + ((z - params.pd) / UD) * sh * sw;
          for (var first = 0u; first < KH; first += BATCH) {
            var x: array<array<array<vec4<f32>, ROW>, LINES>, BATCH>;
            // unroll
            for (var r = 0u; r < BATCH; r++) {
              // unroll
              for (var l = 0u; l < LINES; l++) {
                let row = (h + l) * SH + first + r;
                let row_inside = row >= params.ph && row < params.ih + params.ph;
                let start = plane + (clamp(row, params.ph, params.ih + params.ph - 1u) - params.ph) / UH * sw;
                // unroll
                for (var q = 0u; q < ROW; q++) {
                  let at = w0 * SW + q;
                  let inside = row_inside && at >= params.pw && at < params.iw + params.pw;
                  let column = clamp(at, params.pw, params.iw + params.pw - 1u) - params.pw;
                  x[r][l][q] = select(vec4<f32>(0.0), load(start + column / UW, c), inside);
                }
              }
            }
            // unroll
            for (var r = 0u; r < BATCH; r++) {
              // unroll
              for (var o = 0u; o < OUT; o++) {
                let block = params.weight_out + min(tile * OUT + o, params.outs - 1u);
                let taps = ((block * params.cols + params.weight_in + i) * KD + kd) * KH + first + r;
                var sum: array<array<vec4<f32>, VOX>, LINES>;
                // unroll
                for (var kw = 0u; kw < KW; kw++) {
                  let m = weight[taps * KW + kw];
                  // unroll
                  for (var l = 0u; l < LINES; l++) {
                    // unroll
                    for (var j = 0u; j < VOX; j++) {
                      let v = x[r][l][j * SW + kw];
                      if (CIN == 1u) {
                        y[l][j][o] = y[l][j][o] + m[0] * v.x;
                      } else if (CIN == 2u) {
                        y[l][j][o] = y[l][j][o] + m[0] * v.x + m[1] * v.y;
                      } else {
                        if (kw == 0u) { sum[l][j] = m[3] * v.w; } else { sum[l][j] = fma(m[3], vec4<f32>(v.w), sum[l][j]); }
                        sum[l][j] = fma(m[0], vec4<f32>(v.x), fma(m[1], vec4<f32>(v.y), fma(m[2], vec4<f32>(v.z), sum[l][j])));
                      }
                    }
                  }
                }
                if (CIN > 2u) {
                  // unroll
                  for (var l = 0u; l < LINES; l++) {
                    // unroll
                    for (var j = 0u; j < VOX; j++) { y[l][j][o] = y[l][j][o] + sum[l][j]; }
                  }
                }
              }
            }
          }
        }
      }
    }
    let size = params.od * params.oh * params.ow;
    let start = params.out_base + (n * params.out_blocks + tile * OUT) * size + (d * params.oh + h) * params.ow + w0;
    // unroll
    for (var o = 0u; o < OUT; o++) {
      var b = vec4<f32>(0.0);
      if (BIAS) { b = bias[params.weight_out + min(tile * OUT + o, params.outs - 1u)]; }
      // unroll
      for (var l = 0u; l < LINES; l++) {
        // unroll
        for (var j = 0u; j < VOX; j++) {
          if (tile * OUT + o < params.outs && h + l < params.oh && w0 + j < params.ow) {
            let at = start + o * size + l * params.ow + j;
            var value = y[l][j][o];
            if (BIAS) { value = value + b; }
            if (ACC) { value = value + out[at]; }
            out[at] = value;
          }
        }
      }
    }
  }
}
