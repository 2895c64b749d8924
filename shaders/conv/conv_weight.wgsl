// Weight gradient of the convolution of conv.wgsl, as partial sums.
//
//   partial[p,o,i,kd,kh,kw] = sum over part p of  load(dy)[n,o,d,h,w] * load(x)[n,i,d*SD+kd-pd,h*SH+kh-ph,w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = gradient for input lane j):
//   src [N, SB, ID/UD, IH/UH, IW/UW], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, OD, OH, OW], gcoef (GNORM, GACT)
//   partial [parts, OB, IB, KD*KH*KW] mat4x4
// A thread owns OUT output blocks, one input block, one kd, LINES (1 or KH) of the kh and all KW taps. It walks over the rows
// (d, h) of its part of a sample, VOX outputs at a time, and writes its own partial: no atomics, reproducible to the bit.
// Source: the chain rule of conv.wgsl.

struct Params {
  ins: u32, outs: u32, parts: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, rows: u32,
  pd: u32, ph: u32, pw: u32, per_sample: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
}

override KD: u32 = 3u;
override KH: u32 = 3u;
override SD: u32 = 1u;
override SH: u32 = 1u;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const VOX: u32 = 4u;
const OUT: u32 = 1u;
const LINES: u32 = 1u;
const KW: u32 = 3u;
const SW: u32 = 1u;
const ROW: u32 = 6u;
const CIN: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<mat4x4<f32>>;

// import load_grad

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = (wg.x + wg.y * ng.x) * WG + lane;
  let kh = t % (KH / LINES) * LINES; t = t / (KH / LINES);
  let kd = t % KD; t = t / KD;
  let i = t % params.ins; t = t / params.ins;
  let tiles = (params.outs + OUT - 1u) / OUT;
  let o0 = t % tiles * OUT; t = t / tiles;
  let part = t;
  if (part < params.parts) {
    var s: array<array<array<mat4x4<f32>, KW>, LINES>, OUT>;
    let sh = params.ih / UH;
    let sw = params.iw / UW;
    let source_size = (params.id / UD) * sh * sw;
    let grad_size = params.od * params.oh * params.ow;
    let n = part / params.per_sample;
    let rows = params.od * params.oh;
    let source_block = n * params.src_blocks + i;
    let grad_block = n * params.grad_blocks + o0;
    let c = load_coef(source_block);
    var g: array<Coef, OUT>;
    // unroll
    for (var o = 0u; o < OUT; o++) {
      g[o] = load_grad_coef(min(grad_block + o, n * params.grad_blocks + params.outs - 1u));
      // unroll
      for (var l = 0u; l < LINES; l++) {
        // unroll
        for (var kw = 0u; kw < KW; kw++) { s[o][l][kw] = mat4x4<f32>(); }
      }
    }
    for (var step = 0u; step < params.rows; step++) {
      let at = (part % params.per_sample) * params.rows + step;
      let h = at % params.oh;
      let d = at / params.oh;
      let z = d * SD + kd;
      if (at < rows && z >= params.pd && z < params.id + params.pd) {
        let plane = source_block * source_size + ((z - params.pd) / UD) * sh * sw;
        for (var quad = 0u; quad < params.quads; quad++) {
          let w0 = quad * VOX;
          var v: array<array<vec4<f32>, VOX>, OUT>;
          // unroll
          for (var o = 0u; o < OUT; o++) {
            let block = min(grad_block + o, n * params.grad_blocks + params.outs - 1u);
            let start = block * grad_size + (d * params.oh + h) * params.ow;
            // unroll
            for (var j = 0u; j < VOX; j++) {
              v[o][j] = select(vec4<f32>(0.0), load_grad(start + min(w0 + j, params.ow - 1u), g[o]), w0 + j < params.ow);
            }
          }
          // unroll
          for (var l = 0u; l < LINES; l++) {
            let row = h * SH + kh + l;
            let row_inside = row >= params.ph && row < params.ih + params.ph;
            let line = plane + (clamp(row, params.ph, params.ih + params.ph - 1u) - params.ph) / UH * sw;
            var x: array<vec4<f32>, ROW>;
            // unroll
            for (var q = 0u; q < ROW; q++) {
              let origin = w0 * SW + q;
              let inside = row_inside && origin >= params.pw && origin < params.iw + params.pw;
              let column = clamp(origin, params.pw, params.iw + params.pw - 1u) - params.pw;
              x[q] = select(vec4<f32>(0.0), load(line + column / UW, c), inside);
            }
            // unroll
            for (var o = 0u; o < OUT; o++) {
              // unroll
              for (var j = 0u; j < VOX; j++) {
                // unroll
                for (var kw = 0u; kw < KW; kw++) {
                  let u = x[j * SW + kw];
                  s[o][l][kw][0] = fma(v[o][j], vec4<f32>(u.x), s[o][l][kw][0]);
                  if (CIN > 1u) { s[o][l][kw][1] = fma(v[o][j], vec4<f32>(u.y), s[o][l][kw][1]); }
                  if (CIN > 2u) {
                    s[o][l][kw][2] = fma(v[o][j], vec4<f32>(u.z), s[o][l][kw][2]);
                    s[o][l][kw][3] = fma(v[o][j], vec4<f32>(u.w), s[o][l][kw][3]);
                  }
                }
              }
            }
          }
        }
      }
    }
    // unroll
    for (var o = 0u; o < OUT; o++) {
      if (o0 + o < params.outs) {
        let first = ((params.part_first + part) * params.all_outs + params.out_first + o0 + o) * params.all_ins + params.in_first + i;
        // unroll
        for (var l = 0u; l < LINES; l++) {
          // unroll
          for (var kw = 0u; kw < KW; kw++) { partial[((first * KD + kd) * KH + kh + l) * KW + kw] = s[o][l][kw]; }
        }
      }
    }
  }
}
