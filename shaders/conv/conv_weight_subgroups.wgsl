// Weight gradient of a convolution with 3 taps along W and any stride, as partial sums, by subgroups that share output gradients.
//
//   partial[p,o,i,kd,kh,kw] = sum over part p of  load(dy)[n,o,d,h,w] * load(x)[n,i,d*SD+kd-pd,h*SH+kh-ph,w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = gradient for input lane j): as in conv_weight.wgsl
//   src [N, SB, ID/UD, IH/UH, IW/UW], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, OD, OH, OW], gcoef (GNORM, GACT)
//   partial [parts, OB, IB, KD*KH*3] mat4x4
// A thread owns OUT output blocks and one input block, kd and kh. It walks over the rows (d, h) of its part of a sample, VOX
// outputs at a time, and writes its own partial: no atomics, reproducible to the bit. A workgroup is one subgroup of SUB invocations with
// the same outputs and part: it loads each gradient once and broadcasts it, which pays where a load costs the same whether or not its lanes
// read the same. Every invocation takes part in every broadcast.
// CIN is the number of lanes in use where the source has fewer than 4 channels.
// Source: the chain rule of conv.wgsl.
// needs subgroups

struct Params {
  ins: u32, outs: u32, parts: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, rows: u32,
  pd: u32, ph: u32, pw: u32, per_sample: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
  groups: u32,
}

override KD: u32 = 3u;
override KH: u32 = 3u;
override SD: u32 = 1u;
override SH: u32 = 1u;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const SUB: u32 = 8u;
const VOX: u32 = 4u;
// inputs of a thread's row, gradients that an invocation loads
const ROW: u32 = 6u;
const OUT: u32 = 4u;
const ROUNDS: u32 = 2u;
const SW: u32 = 1u;
const CIN: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<mat4x4<f32>>;

// import load_grad

@compute @workgroup_size(SUB)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  var group = wg.x + wg.y * ng.x;
  // the input block and taps of this invocation: beyond the last one it repeats that and writes nothing
  let task = group % params.groups * SUB + lane; group = group / params.groups;
  var t = min(task, params.ins * KD * KH - 1u);
  let kh = t % KH; t = t / KH;
  let kd = t % KD;
  let i = t / KD;
  let tiles = (params.outs + OUT - 1u) / OUT;
  let o0 = group % tiles * OUT;
  let part = group / tiles;
  let n = min(part, params.parts - 1u) / params.per_sample;
  let sh = params.ih / UH;
  let sw = params.iw / UW;
  let source_block = n * params.src_blocks + i;
  let source_start = source_block * (params.id / UD) * sh * sw;
  let c = load_coef(source_block);
  var g: array<Coef, ROUNDS>;
  // unroll
  for (var q = 0u; q < ROUNDS; q++) {
    g[q] = load_grad_coef(n * params.grad_blocks + min(o0 + (q * SUB + lane) / VOX, params.outs - 1u));
  }
  var s: array<array<array<vec4<f32>, CIN>, 3>, OUT>;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var k = 0u; k < 3u; k++) {
      // unroll
      for (var l = 0u; l < CIN; l++) { s[o][k][l] = vec4<f32>(0.0); }
    }
  }
  let first = (part % params.per_sample) * params.rows;
  let last = min(first + params.rows, params.od * params.oh);
  for (var at = first; at < last; at++) {
    let h = at % params.oh;
    let d = at / params.oh;
    let z = d * SD + kd;
    let row = h * SH + kh;
    let row_inside = z >= params.pd && z < params.id + params.pd && row >= params.ph && row < params.ih + params.ph;
    let plane = source_start + (clamp(z, params.pd, params.id + params.pd - 1u) - params.pd) / UD * sh * sw;
    let line = plane + (clamp(row, params.ph, params.ih + params.ph - 1u) - params.ph) / UH * sw;
    for (var quad = 0u; quad < params.quads; quad++) {
      let w0 = quad * VOX;
      // each invocation loads one gradient of one output block
      var v: array<vec4<f32>, ROUNDS>;
      // unroll
      for (var q = 0u; q < ROUNDS; q++) {
        let w = w0 + (q * SUB + lane) % VOX;
        let block = n * params.grad_blocks + min(o0 + (q * SUB + lane) / VOX, params.outs - 1u);
        let start = (block * params.od + d) * params.oh * params.ow + h * params.ow;
        v[q] = select(vec4<f32>(0.0), load_grad(start + min(w, params.ow - 1u), g[q]), w < params.ow);
      }
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
          const f = o * VOX + j;
          let m = subgroupBroadcast(v[f / SUB], f % SUB);
          // unroll
          for (var k = 0u; k < 3u; k++) {
            let u = x[j * SW + k];
            // unroll
            for (var l = 0u; l < CIN; l++) { s[o][k][l] = fma(m, vec4<f32>(u[l]), s[o][k][l]); }
          }
        }
      }
    }
  }
  if (part < params.parts && task < params.ins * KD * KH) {
    // unroll
    for (var o = 0u; o < OUT; o++) {
      if (o0 + o < params.outs) {
        let block = ((params.part_first + part) * params.all_outs + params.out_first + o0 + o) * params.all_ins + params.in_first + i;
        let target_index = ((block * KD + kd) * KH + kh) * 3u;
        // unroll
        for (var k = 0u; k < 3u; k++) {
          var m = mat4x4<f32>();
          // unroll
          for (var l = 0u; l < CIN; l++) { m[l] = s[o][k][l]; }
          partial[target_index + k] = m;
        }
      }
    }
  }
}
