// Input gradient of the convolution of conv.wgsl, staged in workgroup memory (any stride, by parity).
//
//   dx[n,i,d,h,w] = sum_{o,kd,kh,kw} w[o,i,kd,kh,kw] * load(dy)[n,o,(d+pd-kd)/SD,(h+ph-kh)/SH,(w+pw-kw)/SW]
//
// where only taps that divide evenly and stay inside count.
// Bindings (vec4 = 4 channel lanes): as in conv_input.wgsl
//   out [splits, N, IB, ID, IH, IW], splits > 1 where conv_sum.wgsl adds up what parts of the output blocks make
// A workgroup makes TD planes of TH*LINES lines, all of one parity, of TW*VOX voxels for TO*OUT input blocks. For each output block it stages the box of
// loaded gradients that these read, and the weights of a plane of taps of its parity at a time; a thread makes VOX (a multiple of SW) neighbours
// of LINES lines for OUT input blocks. Which taps along W meet which gradient is known when the loops are unrolled: a stride wastes nothing.
// Rows lie PITCH vectors and planes PLANE rows apart, so that few neighbours meet in a bank. RD and RH are the most taps of a parity along D and H,
// PW is the leading padding along W. STREAMED: as in conv_staged.wgsl. Source: the chain rule of conv.wgsl; tiles as in conv_staged.wgsl.

struct Params {
  n: u32, ins: u32, outs: u32, tiles: u32,
  od: u32, oh: u32, ow: u32, cols: u32,
  id: u32, ih: u32, iw: u32, splits: u32,
  pd: u32, ph: u32, split_ins: u32, weight_in: u32,
  weight_out: u32, src_blocks: u32, coef_first: u32, out_blocks: u32,
  src_base: u32, aux_base: u32, out_base: u32,
}

override ACC: bool = false;
override WG: u32 = 64u;

const VOX: u32 = 4u;
const LINES: u32 = 2u;
const OUT: u32 = 2u;
// threads along D, H, W and input blocks
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
const RD: u32 = 3u;
const RH: u32 = 3u;
const PW: u32 = 1u;
// gradients along W that a thread needs: from FIRST below its first voxel's over SW, ROW of them
const ROW: u32 = 6u;
const FIRST: u32 = 1u;
const PITCH: u32 = 10u;
const PLANE: u32 = 11u;
const COLUMNS: u32 = (TW - 1u) * (VOX / SW) + ROW;
const ROWS: u32 = TH * LINES + RH - 1u;
const PLANES: u32 = TD + RD - 1u;
// sums of a plane of taps that a thread has at a time: those of one output block, or all
const SUMS: u32 = 1u;
// section STREAMED
// vectors of the box that a thread loads
const SLOTS: u32 = 4u;
// otherwise
// columns of the weights of a plane of taps, and how many of a thread's
const LOADS: u32 = 3u;
const TAPS: u32 = RH * KW * 4u;
// end STREAMED

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

// import load
// import staged_box

// Where the gradient at a place of the workgroup's box, which begins RD-1, RH-1, FIRST before `origin`, lies, and whether that is in the
// source: see staged_box.
fn place(s: u32, origin: vec3<u32>) -> u32 {
  let before = vec3<u32>(RD - 1u, RH - 1u, FIRST);
  let size = vec3<u32>(params.od, params.oh, params.ow);
  let at = origin + vec3<u32>(s / (ROWS * COLUMNS), s / COLUMNS % ROWS, s % COLUMNS);
  let inside = all(at >= before) && all(at < size + before);
  let source = clamp(at, before, size + before - 1u) - before;
  return 2u * ((source.x * params.oh + source.y) * params.ow + source.z) + u32(inside);
}

// section STREAMED
// The weights of a tap, from an output block to the workgroup's input block `o`.
fn matrix(tile: u32, o: u32, i: u32, tap: vec3<u32>) -> mat4x4<f32> {
  let block = min(tile * OUT + o, params.outs - 1u);
  let taps = ((params.weight_out + i) * params.cols + params.weight_in + block) * KD + tap.x;
  return transpose(weight[(taps * KH + tap.y) * KW + tap.z]);
}
// otherwise
// one vector more a block, so that neighbours' blocks lie in other banks
var<workgroup> weights: array<array<Factor, TAPS + 1u>, TO * OUT>;

// A column of the weights of a plane of taps: of the workgroup's input blocks from `first` on, for an output block and taps from `kh` on.
fn fetch_weight(s: u32, first: u32, i: u32, tap: vec2<u32>) -> vec4<f32> {
  let block = min(first + s / TAPS, params.outs - 1u);
  let kh = min(tap.y + s % TAPS / (4u * KW) * SH, KH - 1u);
  let row = (((params.weight_out + i) * params.cols + params.weight_in + block) * KD + tap.x) * KH + kh;
  return weight[row * KW + s / 4u % KW][s % 4u];
}
// end STREAMED

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let tile = t % params.tiles; t = t / params.tiles;
  let boxes_w = (params.iw + TW * VOX - 1u) / (TW * VOX);
  let boxes_h = ((params.ih + SH - 1u) / SH + TH * LINES - 1u) / (TH * LINES);
  let boxes_d = ((params.id + SD - 1u) / SD + TD - 1u) / TD;
  let w0 = t % boxes_w * (TW * VOX); t = t / boxes_w;
  let h0 = t % boxes_h * (TH * LINES); t = t / boxes_h;
  let d0 = t % boxes_d * TD; t = t / boxes_d;
  let rh = t % SH; t = t / SH;
  let rd = t % SD; t = t / SD;
  let split = t % params.splits; t = t / params.splits;
  // workgroups beyond the last sample compute along and write nothing
  let n = min(t, params.n - 1u);
  let tw = lane % TW;
  let td = lane / TW % TD;
  let th = lane / (TW * TD) % TH;
  let to = lane / (TW * TD * TH);
  let grad_size = params.od * params.oh * params.ow;
  // the parity's first tap, and the gradient that it meets from the first position
  let first_kd = (rd + params.pd) % SD;
  let first_kh = (rh + params.ph) % SH;
  let origin = vec3<u32>(d0 + (rd + params.pd - first_kd) / SD, h0 + (rh + params.ph - first_kh) / SH, w0 / SW);
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
  let planes = (KD - first_kd + SD - 1u) / SD;
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
  for (var r = 0u; r < LOADS; r++) {
    next[r] = fetch_weight(min(lane + r * WG, TO * OUT * TAPS - 1u), tile * (TO * OUT), min(begin, params.ins - 1u), vec2<u32>(min(first_kd, KD - 1u), first_kh));
  }
  // end STREAMED
  for (var i = begin; i < end; i++) {
    let source_block = n * params.src_blocks + i;
    // section STREAMED
    workgroupBarrier();
    let c = load_coef(params.coef_first + source_block);
    var fresh: array<vec4<f32>, SLOTS>;
    // unroll
    for (var r = 0u; r < SLOTS; r++) { fresh[r] = loaded(places[r], source_block * grad_size, c); }
    // unroll
    for (var r = 0u; r < SLOTS; r++) {
      if (r + 1u < SLOTS || lane + r * WG < BOX) { staged[spots[r] >> 16u][spots[r] & 65535u] = Factor(fresh[r]); }
    }
    workgroupBarrier();
    // end STREAMED
    for (var a = 0u; a < planes; a++) {
      // section STREAMED
      // otherwise
      workgroupBarrier();
      if (a == 0u) {
        let c = load_coef(params.coef_first + source_block);
        stage(origin, source_block * grad_size, c, lane);
      }
      // unroll
      for (var r = 0u; r < LOADS; r++) {
        let s = lane + r * WG;
        if (s < TO * OUT * TAPS) { weights[s / TAPS][s % TAPS] = Factor(next[r]); }
      }
      workgroupBarrier();
      let is_last = a + 1u == planes;
      let tap = vec2<u32>(first_kd + select(a + 1u, 0u, is_last) * SD, first_kh);
      // unroll
      for (var r = 0u; r < LOADS; r++) {
        next[r] = fetch_weight(min(lane + r * WG, TO * OUT * TAPS - 1u), tile * (TO * OUT), min(i + select(0u, 1u, is_last), params.ins - 1u), tap);
      }
      // end STREAMED
      var sum: array<array<array<Factor, SUMS>, VOX>, LINES>;
      // unroll
      for (var l = 0u; l < LINES; l++) {
        // unroll
        for (var j = 0u; j < VOX; j++) {
          // unroll
          for (var o = 0u; o < SUMS; o++) { sum[l][j][o] = Factor(); }
        }
      }
      let row = (td + RD - 1u - a) * PLANE + th * LINES + RH - 1u;
      let column = tw * (VOX / SW);
      // unroll
      for (var b = 0u; b < RH; b++) {
        if (SH == 1u || first_kh + b * SH < KH) {
          var x: array<array<Factor, ROW>, LINES>;
          // unroll
          for (var l = 0u; l < LINES; l++) {
            // unroll
            for (var q = 0u; q < ROW; q++) { x[l][q] = staged[row + l - b][column + q]; }
          }
          // unroll
          for (var o = 0u; o < OUT; o++) {
            if (SUMS < OUT) {
              // unroll
              for (var l = 0u; l < LINES; l++) {
                // unroll
                for (var j = 0u; j < VOX; j++) { sum[l][j][0] = Factor(); }
              }
            }
            // unroll
            for (var kw = 0u; kw < KW; kw++) {
              // of its parity
              const first = kw < SW && (SUMS < OUT || b == 0u);
              // section STREAMED
              let m = matrix(tile, o, i, vec3<u32>(first_kd + a * SD, first_kh + b * SH, kw));
              // otherwise
              const tap = (b * KW + kw) * 4u;
              let m = transpose(Factors(weights[to * OUT + o][tap], weights[to * OUT + o][tap + 1u], weights[to * OUT + o][tap + 2u], weights[to * OUT + o][tap + 3u]));
              // end STREAMED
              // unroll
              for (var l = 0u; l < LINES; l++) {
                // unroll
                for (var j = 0u; j < VOX; j++) {
                  // a thread's first voxel is a multiple of SW: only j + PW - kw decides divisibility and place
                  if ((j + PW + FIRST * SW - kw) % SW == 0u) {
                    let v = x[l][(j + PW + FIRST * SW - kw) / SW];
                    if (first) { sum[l][j][o % SUMS] = m[3] * v.w; } else { sum[l][j][o % SUMS] = fma(m[3], Factor(v.w), sum[l][j][o % SUMS]); }
                    sum[l][j][o % SUMS] = fma(m[0], Factor(v.x), fma(m[1], Factor(v.y), fma(m[2], Factor(v.z), sum[l][j][o % SUMS])));
                  }
                }
              }
            }
            if (SUMS < OUT) {
              // unroll
              for (var l = 0u; l < LINES; l++) {
                // unroll
                for (var j = 0u; j < VOX; j++) { y[l][j][o] = y[l][j][o] + vec4<f32>(sum[l][j][o % SUMS]); }
              }
            }
          }
        }
      }
      if (SUMS == OUT) {
        // unroll
        for (var l = 0u; l < LINES; l++) {
          // unroll
          for (var j = 0u; j < VOX; j++) {
            // unroll
            for (var o = 0u; o < OUT; o++) { y[l][j][o] = y[l][j][o] + vec4<f32>(sum[l][j][o % SUMS]); }
          }
        }
      }
    }
  }
  let size = params.id * params.ih * params.iw;
  let d = (d0 + td) * SD + rd;
  let h = (h0 + th * LINES) * SH + rh;
  let w = w0 + tw * VOX;
  let block = tile * (TO * OUT) + to * OUT;
  let start = params.out_base + ((split * params.n + n) * params.out_blocks + block) * size + (d * params.ih + h) * params.iw + w;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var l = 0u; l < LINES; l++) {
      // unroll
      for (var j = 0u; j < VOX; j++) {
        if (t < params.n && d < params.id && block + o < params.outs && h + l * SH < params.ih && w + j < params.iw) {
          let at = start + o * size + l * SH * params.iw + j;
          var value = y[l][j][o];
          if (ACC) { value = value + out[at]; }
          out[at] = value;
        }
      }
    }
  }
}
