// Convolution with 3 taps and stride 1 along W, or its input gradient, by Winograd's F(2, 3) along W.
//
//   y[n,o,d,h,w] = b[o] + sum_{i,kd,kh,kw} w[o,i,kd,kh,kw] * load(x)[n,i,d*SD+kd-pd, h*SH+kh-ph, w+kw-pw]
//
// With TRANSPOSE the weights are those of the transposed product with mirrored taps: the input gradient of a convolution of stride 1.
// Two neighbours along W take four products instead of six: with x the four inputs and g the three taps of a row,
//   m = (x0-x2) g0, (x1+x2) (g0+g1+g2)/2, (x2-x1) (g0-g1+g2)/2, (x1-x3) g2;  y0 = m0+m1+m2, y1 = m1-m2-m3.
// Sums over i, kd and kh are those of m; the last step comes once.
// Bindings (vec4 = 4 channel lanes; column j of a 4x4 block = weights of input lane j):
//   src [N, SB, ID/UD, IH/UH, IW/UW], aux, coef: as in depthwise.wgsl (ID, IH, IW: the size that the taps see)
//   weight [OB, cols, KD*KH*3, 4] vec4, bias [OB], out [N, OB, OD, OH, OW]
// A thread makes VOX outputs along W for OUT output blocks. A workgroup is one subgroup of SUB invocations, RUNS runs of RUN neighbours
// along H: each row is loaded once and handed on to the neighbour before, each weight is loaded once, transformed and broadcast, which pays
// where a load costs the same whether or not its lanes read the same.
// Every invocation takes part in every broadcast: those without an output of their own work on zeros or repeat the last one's work.
// Source: S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural
// Networks, 2016.
// needs subgroups

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, quads: u32,
  id: u32, ih: u32, iw: u32, cols: u32,
  pd: u32, ph: u32, pw: u32, weight_in: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_out: u32,
  src_base: u32, aux_base: u32, out_base: u32,
}

override TRANSPOSE: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override KD: u32 = 3u;
override SD: u32 = 1u;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const SUB: u32 = 8u;
const VOX: u32 = 4u;
// inputs and pairs of outputs of a thread's row, blocks of weights that an invocation loads
const ROW: u32 = 6u;
const PAIRS: u32 = 2u;
const OUT: u32 = 4u;
const ROUNDS: u32 = 2u;
// neighbours along H that share rows, runs of them, and inputs that an invocation loads of each of the EDGES rows beyond a run's own
const RUN: u32 = 8u;
const RUNS: u32 = 1u;
const CHUNKS: u32 = 1u;
const SH: u32 = 1u;
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
  var y: array<array<array<vec4<f32>, OUT>, 4>, PAIRS>;
  // unroll
  for (var j = 0u; j < PAIRS; j++) {
    // unroll
    for (var r = 0u; r < 4u; r++) {
      // unroll
      for (var o = 0u; o < OUT; o++) { y[j][r][o] = vec4<f32>(0.0); }
    }
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
        for (var q = 0u; q < ROW; q++) { x[r][q] = fetch(plane, c, h * SH + r, w0 + q); }
      }
      var edge: array<array<vec4<f32>, CHUNKS>, EDGES>;
      // unroll
      for (var r = 0u; r < EDGES; r++) {
        // unroll
        for (var k = 0u; k < CHUNKS; k++) { edge[r][k] = fetch(plane, c, (h0 + RUN) * SH + r, w0 + k * RUN + lane % RUN); }
      }
      for (var kh = 0u; kh < 3u; kh++) {
        // each invocation transforms the taps of one column of one 4x4 block
        var g: array<array<vec4<f32>, 4>, ROUNDS>;
        // unroll
        for (var q = 0u; q < ROUNDS; q++) {
          let at = q * SUB + lane;
          let block = min(tile * OUT + at / 4u, params.outs - 1u);
          var first = ((params.weight_out + block) * params.cols + params.weight_in + i) * KD * 3u + kd * 3u + kh;
          if (TRANSPOSE) {
            first = ((params.weight_out + i) * params.cols + params.weight_in + block) * KD * 3u + (KD - 1u - kd) * 3u + 2u - kh;
          }
          first = first * 12u + at % 4u;
          let before = weight[first + select(0u, 8u, TRANSPOSE)];
          let middle = weight[first + 4u] * 0.5;
          let after = weight[first + select(8u, 0u, TRANSPOSE)];
          let ends = (before + after) * 0.5;
          g[q][0] = before;
          g[q][1] = ends + middle;
          g[q][2] = ends - middle;
          g[q][3] = after;
        }
        var u: array<array<vec4<f32>, 4>, PAIRS>;
        // unroll
        for (var j = 0u; j < PAIRS; j++) {
          u[j][0] = x[0][j * 2u] - x[0][j * 2u + 2u];
          u[j][1] = x[0][j * 2u + 1u] + x[0][j * 2u + 2u];
          u[j][2] = x[0][j * 2u + 2u] - x[0][j * 2u + 1u];
          u[j][3] = x[0][j * 2u + 1u] - x[0][j * 2u + 3u];
        }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          const f = o * 4u;
          // unroll
          for (var r = 0u; r < 4u; r++) {
            let a = subgroupBroadcast(g[f / SUB][r], f % SUB);
            let b = subgroupBroadcast(g[(f + 1u) / SUB][r], (f + 1u) % SUB);
            let c = subgroupBroadcast(g[(f + 2u) / SUB][r], (f + 2u) % SUB);
            let e = subgroupBroadcast(g[(f + 3u) / SUB][r], (f + 3u) % SUB);
            var m = mat4x4<f32>(a, b, c, e);
            if (TRANSPOSE) { m = transpose(m); }
            // unroll
            for (var j = 0u; j < PAIRS; j++) {
              let v = u[j][r];
              y[j][r][o] = y[j][r][o] + fma(m[0], vec4<f32>(v.x), fma(m[1], vec4<f32>(v.y), fma(m[2], vec4<f32>(v.z), m[3] * v.w)));
            }
          }
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
        const pair = j / 2u;
        var value = y[pair][0][o] + y[pair][1][o] + y[pair][2][o];
        if (j % 2u == 1u) { value = y[pair][1][o] - y[pair][2][o] - y[pair][3][o]; }
        if (BIAS) { value = value + b; }
        if (ACC) { value = value + out[at]; }
        out[at] = value;
      }
    }
  }
}
