// Convolution with 3 taps and stride 1 or 2 per axis, by subgroups that share what they load.
//
//   y[n,o,d,h,w] = b[o] + sum_{i,kd,kh,kw} w[o,i,kd,kh,kw] * load(x)[n,i,d*SD+kd-pd, h*SH+kh-ph, w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes; column j of a 4x4 block = weights of input lane j):
//   src [N, SB, ID/UD, IH/UH, IW/UW], aux, coef: as in depthwise.wgsl (ID, IH, IW: the size that the taps see)
//   weight [OB, cols, KD*3*3, 4] vec4, bias [OB], out [N, OB, OD, OH, OW]
// A thread makes VOX outputs along W for OUT output blocks. A workgroup is one subgroup of SUB invocations, RUNS runs of RUN neighbours
// along H: each row is loaded once and handed on to the neighbour before, each weight is loaded once and broadcast, which pays where a load
// costs the same whether or not its lanes read the same.
// Every invocation takes part in every broadcast: those without an output of their own work on zeros or repeat the last one's work.
// CIN is the number of lanes in use where the source has fewer than 4 channels.
// Source: implicit GEMM; padding and strides as in the published 3D U2-Net (down-samplers pad (0, 1)).
// needs subgroups

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, cols: u32,
  pd: u32, ph: u32, pw: u32, weight_in: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_out: u32,
  src_base: u32, aux_base: u32, out_base: u32,
}

override BIAS: bool = true;
override ACC: bool = false;
override KD: u32 = 3u;
override SD: u32 = 1u;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const SUB: u32 = 8u;
const VOX: u32 = 4u;
// inputs of a thread's row, weights of a tap that an invocation loads
const ROW: u32 = 6u;
const OUT: u32 = 4u;
const ROUNDS: u32 = 2u;
// neighbours along H that share rows, runs of them, and inputs that an invocation loads of each of the EDGES rows beyond a run's own
const RUN: u32 = 8u;
const RUNS: u32 = 1u;
const CHUNKS: u32 = 1u;
const SH: u32 = 1u;
const SW: u32 = 1u;
const CIN: u32 = 4u;
// taps along W that are written out, 1 or 3; a loop goes over the others
const TAPS: u32 = 3u;
const EDGES: u32 = 2u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import padded_plane
// import next_lane

@compute @workgroup_size(SUB)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let group = wg.x + wg.y * ng.x;
  let tile = group % params.tiles;
  let lines = (params.oh + RUN - 1u) / RUN;
  let units = params.n * params.od * lines * params.quads;
  let unit = group / params.tiles * (SUB / RUN) + lane / RUN;
  var t = min(unit, units - 1u);
  let w0 = t % params.quads * VOX; t = t / params.quads;
  let h0 = t % lines * RUN; t = t / lines;
  let h = h0 + lane % RUN;
  let d = t % params.od;
  let n = t / params.od;
  let sh = params.ih / UH;
  let sw = params.iw / UW;
  let source_size = (params.id / UD) * sh * sw;
  var y: array<array<vec4<f32>, OUT>, VOX>;
  // unroll
  for (var j = 0u; j < VOX; j++) {
    // unroll
    for (var o = 0u; o < OUT; o++) { y[j][o] = vec4<f32>(0.0); }
  }
  for (var i = 0u; i < params.ins; i++) {
    let source_block = n * params.src_blocks + i;
    let c = load_coef(params.coef_first + source_block);
    for (var kd = 0u; kd < KD; kd++) {
      let z = d * SD + kd;
      let z_inside = z >= params.pd && z < params.id + params.pd;
      let start = source_block * source_size + (clamp(z, params.pd, params.id + params.pd - 1u) - params.pd) / UD * sh * sw;
      let plane = Plane(start, z_inside);
      // rows of taps 0 to SH - 1, then those that the run's last line needs beyond
      var x: array<array<vec4<f32>, ROW>, SH>;
      // unroll
      for (var r = 0u; r < SH; r++) {
        // unroll
        for (var q = 0u; q < ROW; q++) { x[r][q] = fetch(plane, c, h * SH + r, w0 * SW + q); }
      }
      var edge: array<array<vec4<f32>, CHUNKS>, EDGES>;
      // unroll
      for (var r = 0u; r < EDGES; r++) {
        // unroll
        for (var k = 0u; k < CHUNKS; k++) { edge[r][k] = fetch(plane, c, (h0 + RUN) * SH + r, w0 * SW + k * RUN + lane % RUN); }
      }
      for (var kh = 0u; kh < 3u; kh++) {
        var v: array<vec4<f32>, ROW>;
        // unroll
        for (var q = 0u; q < ROW; q++) { v[q] = x[0][q]; }
        for (var kw = 0u; kw < 3u; kw += TAPS) {
          // each invocation loads one column of a 4x4 block a tap
          var g: array<array<vec4<f32>, TAPS>, ROUNDS>;
          // unroll
          for (var q = 0u; q < ROUNDS; q++) {
            let at = q * SUB + lane;
            let block = min(tile * OUT + at / CIN, params.outs - 1u);
            let taps = (((params.weight_out + block) * params.cols + params.weight_in + i) * KD + kd) * 9u + kh * 3u + kw;
            // unroll
            for (var k = 0u; k < TAPS; k++) { g[q][k] = weight[(taps + k) * 4u + at % CIN]; }
          }
          // unroll
          for (var o = 0u; o < OUT; o++) {
            const f = o * CIN;
            const f1 = f + 1u % CIN;
            const f2 = f + 2u % CIN;
            const f3 = f + 3u % CIN;
            // unroll
            for (var k = 0u; k < TAPS; k++) {
              let a = subgroupBroadcast(g[f / SUB][k], f % SUB);
              let b = subgroupBroadcast(g[f1 / SUB][k], f1 % SUB);
              let c = subgroupBroadcast(g[f2 / SUB][k], f2 % SUB);
              let e = subgroupBroadcast(g[f3 / SUB][k], f3 % SUB);
              // unroll
              for (var j = 0u; j < VOX; j++) {
                let u = v[j * SW + k];
                if (CIN == 1u) {
                  y[j][o] = y[j][o] + a * u.x;
                } else if (CIN == 2u) {
                  y[j][o] = y[j][o] + fma(a, vec4<f32>(u.x), b * u.y);
                } else {
                  y[j][o] = y[j][o] + fma(a, vec4<f32>(u.x), fma(b, vec4<f32>(u.y), fma(c, vec4<f32>(u.z), e * u.w)));
                }
              }
            }
          }
          // a loop over taps keeps its body small if inputs move to where the first tap looks for them
          // unroll
          for (var q = 0u; q < ROW; q++) { v[q] = v[min(q + TAPS, ROW - 1u)]; }
        }
        // the row of tap SH is the next line's first
        // unroll
        for (var q = 0u; q < ROW; q++) {
          var e = subgroupBroadcast(edge[0][q / RUN], q % RUN);
          // unroll
          for (var r = 0u; r < RUNS; r++) { e = select(e, subgroupBroadcast(edge[0][q / RUN], r * RUN + q % RUN), lane / RUN == r); }
          let row = next_lane(x[0][q], e, lane);
          x[0][q] = x[SH - 1u][q];
          x[SH - 1u][q] = row;
        }
        // unroll
        for (var k = 0u; k < CHUNKS; k++) { edge[0][k] = edge[EDGES - 1u][k]; }
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
    for (var j = 0u; j < VOX; j++) {
      if (unit < units && h < params.oh && tile * OUT + o < params.outs && w0 + j < params.ow) {
        let at = start + o * size + j;
        var value = y[j][o];
        if (BIAS) { value = value + b; }
        if (ACC) { value = value + out[at]; }
        out[at] = value;
      }
    }
  }
}
