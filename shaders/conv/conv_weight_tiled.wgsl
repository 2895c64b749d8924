// Weight gradient of the convolution of conv.wgsl for three taps an axis, as partial sums, from boxes in workgroup memory.
//
//   partial[p,o,i,kd,kh,kw] = sum over part p of  load(dy)[n,o,d,h,w] * load(x)[n,i,d*SD+kd-pd,h*SH+kh-ph,w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes):
//   src [N, SB, ID/UD, IH/UH, IW/UW], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, OD, OH, OW], gcoef (GNORM, GACT)
//   partial [parts, OB, IB, 27, 4], one vector an input lane
// A workgroup owns OUTS = TEAMS * OUT output blocks, INS input blocks and one part of a sample: so many boxes of BD planes and BH lines
// of VOX outputs along W. It loads what a box reads once. A thread owns OUT output blocks, one input block, one kd, one kh and all
// kw, and takes every SHARES-th line of a box; an input that it read serves three taps of all its outputs. In the end the workgroup
// adds up its threads' shares in a fixed order: no atomics, reproducible to the bit.
// Dispatch: a workgroup for each part, tile of input blocks and tile of output blocks, parts fastest.
// Source: the chain rule of conv.wgsl; the implicit matrix product of convolutions.

struct Params {
  ins: u32, outs: u32, parts: u32, in_tiles: u32,
  od: u32, oh: u32, ow: u32, boxes: u32,
  id: u32, ih: u32, iw: u32, each: u32,
  pd: u32, ph: u32, pw: u32, per_sample: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
  lines: u32, runs: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const SD: u32 = 1u;
const SH: u32 = 1u;
const SW: u32 = 1u;
const CIN: u32 = 4u;
const OUT: u32 = 2u;
const TEAMS: u32 = 2u;
const INS: u32 = 1u;
const SHARES: u32 = 7u;
const BD: u32 = 2u;
const BH: u32 = 7u;
const VOX: u32 = 4u;
// inputs that VOX outputs along W read
const ROW: u32 = 6u;
// output blocks of a workgroup
const OUTS: u32 = 4u;
// vectors that a thread loads of each block's inputs and gradients in a box
const INPUTS: u32 = 2u;
const GRADS: u32 = 1u;

// inputs of a box
const ID: u32 = (BD - 1u) * SD + 3u;
const IH: u32 = (BH - 1u) * SH + 3u;
// lines are odd, and planes so many lines that taps and lines that neighbouring threads read lie in different banks, nearly all
const LINE: u32 = ROW | 1u;
const PLANE: u32 = IH + min((11u - IH % 8u) % 8u, (13u - IH % 8u) % 8u);
const GRAD_LINE: u32 = VOX | 1u;
const JOBS: u32 = 9u * TEAMS * INS;
const THREADS: u32 = JOBS * SHARES;
// holds the inputs of a box, and in the end two columns of weights of each thread
const INPUT_LINES: u32 = max(INS * ID * PLANE, (2u * THREADS + LINE - 1u) / LINE);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> inputs: array<array<vec4<f32>, LINE>, INPUT_LINES>;
var<workgroup> grads: array<array<vec4<f32>, GRAD_LINE>, OUTS * BD * BH>;

// import load_grad

// Where the e-th vector of a box of `height` lines of `width` vectors lies, packed: below 256 along each axis.
fn packed(e: u32, width: u32, height: u32) -> u32 {
  return (e % width) | ((e / width % height) << 8u) | ((e / (width * height)) << 16u);
}

fn unpacked(at: u32) -> vec3<u32> {
  return vec3<u32>(at >> 16u, (at >> 8u) & 255u, at & 255u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let part = t % params.parts; t = t / params.parts;
  let i0 = t % params.in_tiles * INS; t = t / params.in_tiles;
  // workgroups beyond the last tile compute along and write nothing
  let o0 = t * OUTS;
  let n = part / params.per_sample;
  let input_size = vec3<u32>(params.id, params.ih, params.iw);
  let grad_size = vec3<u32>(params.od, params.oh, params.ow);
  let sh = params.ih / UH;
  let sw = params.iw / UW;
  let source_voxels = (params.id / UD) * sh * sw;
  let grad_voxels = params.od * params.oh * params.ow;
  let job = lane % JOBS;
  let tap = job % 9u;
  let pair = job / 9u;
  let share = lane / JOBS;
  let first_input = pair % INS * ID * PLANE + tap / 3u * PLANE + tap % 3u;
  let first_grad = pair / INS * OUT * BD * BH;
  var s: array<array<mat4x4<f32>, 3>, OUT>;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var kw = 0u; kw < 3u; kw++) { s[o][kw] = mat4x4<f32>(); }
  }
  // what the thread loads of every box
  var input_at: array<u32, INPUTS>;
  var grad_at: array<u32, GRADS>;
  // unroll
  for (var r = 0u; r < INPUTS; r++) { input_at[r] = packed(r * THREADS + lane, ROW, IH); }
  // unroll
  for (var r = 0u; r < GRADS; r++) { grad_at[r] = packed(r * THREADS + lane, VOX, BH); }
  let first = part % params.per_sample * params.each;
  let last = min(first + params.each, params.boxes);
  for (var box = first; box < last; box++) {
    let plane = box / (params.lines * params.runs);
    let origin = vec3<u32>(plane * BD, box / params.runs % params.lines * BH, box % params.runs * VOX);
    // before the first input it wraps around, beyond all
    let start = origin * vec3<u32>(SD, SH, SW) - vec3<u32>(params.pd, params.ph, params.pw);
    // unroll
    for (var r = 0u; r < INPUTS; r++) {
      if ((r + 1u) * THREADS <= ID * IH * ROW || r * THREADS + lane < ID * IH * ROW) {
        let at = unpacked(input_at[r]);
        let place = start + at;
        let inside = all(place < input_size);
        let index = select(0u, ((place.x / UD) * sh + place.y / UH) * sw + place.z / UW, inside);
        // unroll
        for (var i = 0u; i < INS; i++) {
          let block = n * params.src_blocks + min(i0 + i, params.ins - 1u);
          let loaded = load(block * source_voxels + index, load_coef(block));
          inputs[(i * ID + at.x) * PLANE + at.y][at.z] = select(vec4<f32>(0.0), loaded, inside);
        }
      }
    }
    // unroll
    for (var r = 0u; r < GRADS; r++) {
      if ((r + 1u) * THREADS <= BD * BH * VOX || r * THREADS + lane < BD * BH * VOX) {
        let at = unpacked(grad_at[r]);
        let place = origin + at;
        let inside = all(place < grad_size);
        let index = select(0u, (place.x * params.oh + place.y) * params.ow + place.z, inside);
        // unroll
        for (var o = 0u; o < OUTS; o++) {
          let block = n * params.grad_blocks + min(o0 + o, params.outs - 1u);
          let loaded = load_grad(block * grad_voxels + index, load_grad_coef(block));
          grads[(o * BD + at.x) * BH + at.y][at.z] = select(vec4<f32>(0.0), loaded, inside);
        }
      }
    }
    workgroupBarrier();
    // neighbouring shares are neighbouring lines
    for (var line = share; line < BD * BH; line += SHARES) {
      let x_at = first_input + line / BH * SD * PLANE + line % BH * SH;
      let g_at = first_grad + line;
      var v: array<array<vec4<f32>, VOX>, OUT>;
      // unroll
      for (var x = 0u; x < ROW; x++) {
        let u = inputs[x_at][x];
        if (x % SW == 0u && x / SW < VOX) {
          // unroll
          for (var o = 0u; o < OUT; o++) { v[o][min(x / SW, VOX - 1u)] = grads[g_at + o * BD * BH][min(x / SW, VOX - 1u)]; }
        }
        // unroll
        for (var kw = 0u; kw < 3u; kw++) {
          // output j reads this input through tap kw
          const ahead = x - min(kw, x);
          const j = min(ahead / SW, VOX - 1u);
          if (x >= kw && ahead % SW == 0u && ahead / SW < VOX) {
            // unroll
            for (var o = 0u; o < OUT; o++) {
              s[o][kw][0] = fma(v[o][j], vec4<f32>(u.x), s[o][kw][0]);
              if (CIN > 1u) { s[o][kw][1] = fma(v[o][j], vec4<f32>(u.y), s[o][kw][1]); }
              if (CIN > 2u) {
                s[o][kw][2] = fma(v[o][j], vec4<f32>(u.z), s[o][kw][2]);
                s[o][kw][3] = fma(v[o][j], vec4<f32>(u.w), s[o][kw][3]);
              }
            }
          }
        }
      }
    }
    workgroupBarrier();
  }
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var kw = 0u; kw < 3u; kw++) {
      // unroll
      for (var half = 0u; half < 2u; half++) {
        if (2u * half < CIN) {
          // unroll
          for (var j = 0u; j < 2u; j++) {
            let e = j * THREADS + lane;
            inputs[e / LINE][e % LINE] = s[o][kw][2u * half + j];
          }
          workgroupBarrier();
        }
        for (var k = lane; k < 2u * JOBS; k += THREADS) {
          let other = k % JOBS;
          let at = k / JOBS * THREADS + other;
          // of lanes that are no channel it is zero
          var sum = vec4<f32>(0.0);
          if (2u * half < CIN) {
            for (var e = at; e < at + THREADS; e += JOBS) { sum += inputs[e / LINE][e % LINE]; }
          }
          let i = i0 + other / 9u % INS;
          let out = o0 + other / 9u / INS * OUT + o;
          if (i < params.ins && out < params.outs) {
            let block = ((params.part_first + part) * params.all_outs + params.out_first + out) * params.all_ins + params.in_first + i;
            partial[(block * 27u + other % 9u * 3u + kw) * 4u + 2u * half + k / JOBS] = sum;
          }
        }
        if (2u * half < CIN) { workgroupBarrier(); }
      }
    }
  }
}
