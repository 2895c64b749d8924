// Convolution with 1 or 3 taps, stride 1 or 2 per axis and any leading padding, staged in workgroup memory.
//
//   y[n,o,d,h,w] = b[o] + sum_{i,kd,kh,kw} w[o,i,kd,kh,kw] * load(x)[n,i,d*SD+kd-pd, h*SH+kh-ph, w*SW+kw-pw]
//
// The load is zero outside the source.
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in conv.wgsl
//   out [splits, N, OB, OD, OH, OW], splits > 1 where conv_sum.wgsl adds up what parts of the input blocks make
// A workgroup makes a box of TD x TH*LINES x TW*VOX outputs for TO*OUT output blocks. For each input block it stages the loaded box that these
// read, and the weights of a plane of taps at a time; a thread makes LINES x VOX outputs along H and W for OUT output blocks. Rows lie PITCH
// vectors and planes PLANE rows apart, so that few neighbours meet in a bank. Products of a plane of taps (where SUMS is less
// than OUT: of a row of them) are summed before they join the sum.
// With the section STREAMED all of a workgroup make the same OUT output blocks (TO is 1) and read weights where they need them: what a
// workgroup shares goes to scalar registers on GPUs that have some.
// CIN is the number of lanes in use where the source has fewer than 4 channels.
// Source: implicit GEMM with a tiled matrix product, as in Volkov, Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, cols: u32,
  id: u32, ih: u32, iw: u32, splits: u32,
  pd: u32, ph: u32, pw: u32, split_ins: u32,
  weight_in: u32, weight_out: u32, src_blocks: u32, coef_first: u32,
  out_blocks: u32, src_base: u32, aux_base: u32, out_base: u32,
}

override BIAS: bool = false;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const VOX: u32 = 4u;
const LINES: u32 = 2u;
const OUT: u32 = 2u;
// threads along D, H, W and output blocks
const TD: u32 = 4u;
const TH: u32 = 4u;
const TW: u32 = 2u;
const TO: u32 = 2u;
const KD: u32 = 3u;
const KH: u32 = 3u;
const KW: u32 = 3u;
const SD: u32 = 1u;
const SH: u32 = 1u;
const SW: u32 = 1u;
const ROW: u32 = 6u;
const CIN: u32 = 4u;
const PITCH: u32 = 10u;
const PLANE: u32 = 11u;
const COLUMNS: u32 = (TW * VOX - 1u) * SW + KW;
const ROWS: u32 = (TH * LINES - 1u) * SH + KH;
const PLANES: u32 = (TD - 1u) * SD + KD;
// sums of a plane of taps that a thread has at a time: those of one output block, or all
const SUMS: u32 = 1u;
// section STREAMED
// vectors of the box that a thread loads
const SLOTS: u32 = 4u;
// otherwise
// columns of the weights of a plane of taps, and how many of a thread's
const LOADS: u32 = 3u;
const TAPS: u32 = KH * KW * 4u;
// end STREAMED

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import staged_box

// Where the input at a place of the workgroup's box, which begins at `origin`, lies, and whether that is in the source: see staged_box.
fn place(s: u32, origin: vec3<u32>) -> u32 {
  let pad = vec3<u32>(params.pd, params.ph, params.pw);
  let size = vec3<u32>(params.id, params.ih, params.iw);
  let at = origin + vec3<u32>(s / (ROWS * COLUMNS), s / COLUMNS % ROWS, s % COLUMNS);
  let inside = all(at >= pad) && all(at < size + pad);
  let source = (clamp(at, pad, size + pad - 1u) - pad) / vec3<u32>(UD, UH, UW);
  return 2u * ((source.x * (params.ih / UH) + source.y) * (params.iw / UW) + source.z) + u32(inside);
}

// section STREAMED
// The weights of a tap of a plane, from an input block to the workgroup's output block `o`.
fn matrix(tile: u32, o: u32, i: u32, kd: u32, tap: u32) -> mat4x4<f32> {
  let block = min(tile * OUT + o, params.outs - 1u);
  let taps = ((params.weight_out + block) * params.cols + params.weight_in + i) * KD + kd;
  return weight[taps * (KH * KW) + tap];
}
// otherwise
// one vector more a block, so that neighbours' blocks lie in other banks
var<workgroup> weights: array<array<Factor, TAPS + 1u>, TO * OUT>;

// A column of the weights of a plane of taps: of the workgroup's output blocks from `first` on, for an input block.
fn fetch_weight(s: u32, first: u32, i: u32, kd: u32) -> vec4<f32> {
  let block = min(first + s / TAPS, params.outs - 1u);
  let taps = ((params.weight_out + block) * params.cols + params.weight_in + i) * KD + kd;
  return weight[taps * (KH * KW) + s / 4u % (KH * KW)][s % 4u];
}
// end STREAMED

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let tile = t % params.tiles; t = t / params.tiles;
  let boxes_w = (params.ow + TW * VOX - 1u) / (TW * VOX);
  let boxes_h = (params.oh + TH * LINES - 1u) / (TH * LINES);
  let boxes_d = (params.od + TD - 1u) / TD;
  let w0 = t % boxes_w * (TW * VOX); t = t / boxes_w;
  let h0 = t % boxes_h * (TH * LINES); t = t / boxes_h;
  let d0 = t % boxes_d * TD; t = t / boxes_d;
  let split = t % params.splits; t = t / params.splits;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  let tw = lane % TW;
  let td = lane / TW % TD;
  let th = lane / (TW * TD) % TH;
  let to = lane / (TW * TD * TH);
  let source_size = (params.id / UD) * (params.ih / UH) * (params.iw / UW);
  let origin = vec3<u32>(d0 * SD, h0 * SH, w0 * SW);
  var y: array<array<array<vec4<f32>, OUT>, VOX>, LINES>;
  // unroll
  for (var l = 0u; l < LINES; l++) {
    // unroll
    for (var j = 0u; j < VOX; j++) {
      // unroll
      for (var o = 0u; o < OUT; o++) { y[l][j][o] = vec4<f32>(0.0); }
    }
  }
  let begin = split * params.split_ins;
  let end = min(params.ins, begin + params.split_ins);
  // section STREAMED
  // which vectors of the box a thread loads: where they lie in each input block, and where they go
  var places: array<u32, SLOTS>;
  var spots: array<u32, SLOTS>;
  // unroll
  for (var r = 0u; r < SLOTS; r++) {
    let s = min(lane + r * WG, BOX - 1u);
    places[r] = place(s, origin);
    spots[r] = (staged_row(s) << 16u) | (s % COLUMNS);
  }
  // otherwise
  // weights of the next plane of taps, on their way while this one is summed
  var next: array<vec4<f32>, LOADS>;
  // unroll
  for (var r = 0u; r < LOADS; r++) { next[r] = fetch_weight(min(lane + r * WG, TO * OUT * TAPS - 1u), tile * (TO * OUT), min(begin, params.ins - 1u), 0u); }
  // end STREAMED
  for (var i = begin; i < end; i++) {
    let source_block = n * params.src_blocks + i;
    // section STREAMED
    workgroupBarrier();
    let c = load_coef(params.coef_first + source_block);
    var fresh: array<vec4<f32>, SLOTS>;
    // unroll
    for (var r = 0u; r < SLOTS; r++) { fresh[r] = loaded(places[r], source_block * source_size, c); }
    // unroll
    for (var r = 0u; r < SLOTS; r++) {
      if (r + 1u < SLOTS || lane + r * WG < BOX) { staged[spots[r] >> 16u][spots[r] & 65535u] = Factor(fresh[r]); }
    }
    workgroupBarrier();
    // end STREAMED
    for (var kd = 0u; kd < KD; kd++) {
      // section STREAMED
      // otherwise
      workgroupBarrier();
      if (kd == 0u) {
        let c = load_coef(params.coef_first + source_block);
        stage(origin, source_block * source_size, c, lane);
      }
      // unroll
      for (var r = 0u; r < LOADS; r++) {
        let s = lane + r * WG;
        if (s < TO * OUT * TAPS) { weights[s / TAPS][s % TAPS] = Factor(next[r]); }
      }
      workgroupBarrier();
      let step = min(i * KD + kd + 1u, params.ins * KD - 1u);
      // unroll
      for (var r = 0u; r < LOADS; r++) { next[r] = fetch_weight(min(lane + r * WG, TO * OUT * TAPS - 1u), tile * (TO * OUT), step / KD, step % KD); }
      // end STREAMED
      let row = (td * SD + kd) * PLANE + th * (LINES * SH);
      let column = tw * (VOX * SW);
      var sum: array<array<array<Factor, SUMS>, VOX>, LINES>;
      // unroll
      for (var kh = 0u; kh < KH; kh++) {
        var x: array<array<Factor, ROW>, LINES>;
        // unroll
        for (var l = 0u; l < LINES; l++) {
          // unroll
          for (var q = 0u; q < ROW; q++) { x[l][q] = staged[row + l * SH + kh][column + q]; }
        }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          // unroll
          for (var kw = 0u; kw < KW; kw++) {
            const first = kw == 0u && (SUMS < OUT || kh == 0u);
            // section STREAMED
            let m = matrix(tile, o, i, kd, kh * KW + kw);
            // otherwise
            const tap = (kh * KW + kw) * 4u;
            let m = Factors(weights[to * OUT + o][tap], weights[to * OUT + o][tap + 1u], weights[to * OUT + o][tap + 2u], weights[to * OUT + o][tap + 3u]);
            // end STREAMED
            // unroll
            for (var l = 0u; l < LINES; l++) {
              // unroll
              for (var j = 0u; j < VOX; j++) {
                let v = x[l][j * SW + kw];
                if (CIN == 1u) {
                  if (first) { sum[l][j][o % SUMS] = m[0] * v.x; } else { sum[l][j][o % SUMS] = fma(m[0], Factor(v.x), sum[l][j][o % SUMS]); }
                } else if (CIN == 2u) {
                  if (first) { sum[l][j][o % SUMS] = m[1] * v.y; } else { sum[l][j][o % SUMS] = fma(m[1], Factor(v.y), sum[l][j][o % SUMS]); }
                  sum[l][j][o % SUMS] = fma(m[0], Factor(v.x), sum[l][j][o % SUMS]);
                } else {
                  if (first) { sum[l][j][o % SUMS] = m[3] * v.w; } else { sum[l][j][o % SUMS] = fma(m[3], Factor(v.w), sum[l][j][o % SUMS]); }
                  sum[l][j][o % SUMS] = fma(m[0], Factor(v.x), fma(m[1], Factor(v.y), fma(m[2], Factor(v.z), sum[l][j][o % SUMS])));
                }
              }
            }
          }
          if (SUMS < OUT || kh + 1u == KH) {
            // unroll
            for (var l = 0u; l < LINES; l++) {
              // unroll
              for (var j = 0u; j < VOX; j++) { y[l][j][o] = y[l][j][o] + vec4<f32>(sum[l][j][o % SUMS]); }
            }
          }
        }
      }
    }
  }
  let size = params.od * params.oh * params.ow;
  let d = d0 + td;
  let h = h0 + th * LINES;
  let w = w0 + tw * VOX;
  let block = tile * (TO * OUT) + to * OUT;
  let start = params.out_base + ((split * params.n + n) * params.out_blocks + block) * size + (d * params.oh + h) * params.ow + w;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    var b = vec4<f32>(0.0);
    if (BIAS) { b = bias[params.weight_out + min(block + o, params.outs - 1u)]; }
    // unroll
    for (var l = 0u; l < LINES; l++) {
      // unroll
      for (var j = 0u; j < VOX; j++) {
        if (t < params.n && d < params.od && block + o < params.outs && h + l < params.oh && w + j < params.ow) {
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
