// Input gradient of a convolution with 3 taps and any stride, by subgroups that share what they load.
//
//   dx[n,i,d,h,w] = sum_{o,kd,kh,kw} w[o,i,kd,kh,kw] * load(dy)[n,o,(d+pd-kd)/SD,(h+ph-kh)/SH,(w+pw-kw)/SW]
//
// where only taps that divide evenly and stay inside count.
// Bindings (vec4 = 4 channel lanes; column j of a 4x4 block = weights of input lane j):
//   src, aux [N, SB, OD, OH, OW] and coef: the output gradient, loaded as in depthwise.wgsl with GRAD
//   weight [OB, cols, KD*3*3, 4] vec4, out [N, IB, ID, IH, IW]
// A thread makes VOX neighbours along W (a multiple of SW) for OUT input blocks. A workgroup is one subgroup of SUB invocations, RUNS runs of
// RUN lines of one parity along H, in planes of one parity: all loop over the same taps, and a stride wastes nothing. Each row is loaded once
// and handed on to the neighbour before, each weight is loaded once and broadcast, which pays where a load costs the same whether or not its
// lanes read the same. Which taps along W meet which gradient is known when the loops are unrolled; PW is the leading padding there.
// Every invocation takes part in every broadcast: those without an output of their own work on zeros or repeat the last one's work.
// Source: the chain rule of conv.wgsl.
// needs subgroups

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, cols: u32,
  pd: u32, ph: u32, weight_in: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_out: u32,
  src_base: u32, aux_base: u32, out_base: u32, planes: u32,
}

override ACC: bool = false;
override KD: u32 = 3u;
override SD: u32 = 1u;

const SUB: u32 = 8u;
const VOX: u32 = 4u;
// gradients along W that a thread needs: from FIRST below w0/SW, ROW of them; weights of a tap that an invocation loads
const ROW: u32 = 6u;
const FIRST: u32 = 1u;
const OUT: u32 = 4u;
const ROUNDS: u32 = 2u;
// neighbours along H that share rows, runs of them, and gradients that an invocation loads of each of the EDGES rows beyond a run's own
const RUN: u32 = 8u;
const RUNS: u32 = 1u;
const CHUNKS: u32 = 1u;
const EDGES: u32 = 2u;
const SH: u32 = 1u;
const SW: u32 = 1u;
const PW: u32 = 1u;
// zeros that the rows of `fetch` are counted with
const AHEAD: u32 = 4u / SH;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import next_lane

struct Plane { start: u32, inside: bool }

// A gradient of a plane: its row is counted from AHEAD before the first, its column from FIRST before.
fn fetch(plane: Plane, c: Coef, row: u32, column: u32) -> vec4<f32> {
  let inside = plane.inside && row >= AHEAD && row < params.oh + AHEAD && column >= FIRST && column < params.ow + FIRST;
  let y = clamp(row, AHEAD, params.oh + AHEAD - 1u) - AHEAD;
  let x = clamp(column, FIRST, params.ow + FIRST - 1u) - FIRST;
  return select(vec4<f32>(0.0), load(plane.start + y * params.ow + x, c), inside);
}

@compute @workgroup_size(SUB)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let group = wg.x + wg.y * ng.x;
  let tile = group % params.tiles;
  let h_parity = group / params.tiles % SH;
  let d_parity = group / (params.tiles * SH) % SD;
  let lines = ((params.ih + SH - 1u) / SH + RUN - 1u) / RUN;
  let units = params.n * params.planes * lines * params.quads;
  let unit = group / (params.tiles * SH * SD) * (SUB / RUN) + lane / RUN;
  var t = min(unit, units - 1u);
  let w0 = t % params.quads * VOX; t = t / params.quads;
  let first_line = t % lines * RUN; t = t / lines;
  let h = (first_line + lane % RUN) * SH + h_parity;
  let d = t % params.planes * SD + d_parity;
  let n = t / params.planes;
  // the last tap along H that meets a gradient meets the first row
  let kh_first = (h_parity + params.ph) % SH;
  let kh_last = kh_first + (2u - kh_first) / SH * SH;
  let first_row = first_line + (h_parity + params.ph + 4u - kh_last) / SH;
  var y: array<array<vec4<f32>, OUT>, VOX>;
  // unroll
  for (var j = 0u; j < VOX; j++) {
    // unroll
    for (var o = 0u; o < OUT; o++) { y[j][o] = vec4<f32>(0.0); }
  }
  for (var i = 0u; i < params.ins; i++) {
    let source_block = n * params.src_blocks + i;
    let c = load_coef(params.coef_first + source_block);
    for (var kd = (d_parity + params.pd) % SD; kd < KD; kd += SD) {
      let reach = d + params.pd;
      let z = (reach - min(kd, reach)) / SD;
      let plane = Plane((source_block * params.od + min(z, params.od - 1u)) * params.oh * params.ow, reach >= kd && z < params.od);
      var x: array<vec4<f32>, ROW>;
      // unroll
      for (var q = 0u; q < ROW; q++) { x[q] = fetch(plane, c, first_row + lane % RUN, w0 / SW + q); }
      var edge: array<array<vec4<f32>, CHUNKS>, EDGES>;
      // unroll
      for (var r = 0u; r < EDGES; r++) {
        // unroll
        for (var k = 0u; k < CHUNKS; k++) { edge[r][k] = fetch(plane, c, first_row + RUN + r, w0 / SW + k * RUN + lane % RUN); }
      }
      for (var back = 0u; back + kh_first <= kh_last; back += SH) {
        // each invocation loads one column of a 4x4 block a tap
        var g: array<array<vec4<f32>, 3>, ROUNDS>;
        // unroll
        for (var q = 0u; q < ROUNDS; q++) {
          let at = q * SUB + lane;
          let block = min(tile * OUT + at / 4u, params.outs - 1u);
          let taps = (((params.weight_out + i) * params.cols + params.weight_in + block) * KD + kd) * 9u + (kh_last - back) * 3u;
          // unroll
          for (var k = 0u; k < 3u; k++) { g[q][k] = weight[(taps + k) * 4u + at % 4u]; }
        }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          const f = o * 4u;
          // unroll
          for (var k = 0u; k < 3u; k++) {
            let a = subgroupBroadcast(g[f / SUB][k], f % SUB);
            let b = subgroupBroadcast(g[(f + 1u) / SUB][k], (f + 1u) % SUB);
            let c = subgroupBroadcast(g[(f + 2u) / SUB][k], (f + 2u) % SUB);
            let e = subgroupBroadcast(g[(f + 3u) / SUB][k], (f + 3u) % SUB);
            let m = transpose(mat4x4<f32>(a, b, c, e));
            // unroll
            for (var j = 0u; j < VOX; j++) {
              // w0 is a multiple of SW: only j + PW - k decides divisibility and place
              if ((j + PW + FIRST * SW - k) % SW == 0u) {
                let u = x[(j + PW + FIRST * SW - k) / SW];
                y[j][o] = y[j][o] + fma(m[0], vec4<f32>(u.x), fma(m[1], vec4<f32>(u.y), fma(m[2], vec4<f32>(u.z), m[3] * u.w)));
              }
            }
          }
        }
        // the next row of each line is its neighbour's
        // unroll
        for (var q = 0u; q < ROW; q++) {
          var e = subgroupBroadcast(edge[0][q / RUN], q % RUN);
          // unroll
          for (var r = 0u; r < RUNS; r++) { e = select(e, subgroupBroadcast(edge[0][q / RUN], r * RUN + q % RUN), lane / RUN == r); }
          x[q] = next_lane(x[q], e, lane);
        }
        // unroll
        for (var k = 0u; k < CHUNKS; k++) { edge[0][k] = edge[EDGES - 1u][k]; }
      }
    }
  }
  let size = params.id * params.ih * params.iw;
  let start = params.out_base + (n * params.out_blocks + tile * OUT) * size + (d * params.ih + h) * params.iw + w0;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var j = 0u; j < VOX; j++) {
      if (unit < units && d < params.id && h < params.ih && tile * OUT + o < params.outs && w0 + j < params.iw) {
        let at = start + o * size + j;
        var value = y[j][o];
        if (ACC) { value = value + out[at]; }
        out[at] = value;
      }
    }
  }
}
