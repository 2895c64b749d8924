// Weight gradient of the convolution of conv.wgsl for three taps an axis, as partial sums, from boxes in workgroup memory.
//
//   partial[p,o,i,kd,kh,kw] = sum over part p of  load(dy)[n,o,d,h,w] * load(x)[n,i,d*SD+kd-pd,h*SH+kh-ph,w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes):
//   src [N, SB, ID/UD, IH/UH, IW/UW], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, OD, OH, OW], gcoef (GNORM, GACT)
//   partial [parts, OB, IB, 27, 4], one vector an input lane
// A workgroup owns TEAMS * OUT output blocks, INS input blocks and one part of a sample: so many boxes of BD planes, BH lines and BQ
// runs of VOX outputs along W. It loads what a box reads once. A thread owns OUT output blocks, one input block, one kd, one kh and
// all kw, and takes every SHARES-th run of a box; an input that it read serves three taps of all its outputs. In the end the
// workgroup adds up its threads' shares in a fixed order: no atomics, reproducible to the bit.
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
const BQ: u32 = 1u;
const VOX: u32 = 4u;
// inputs and gradients that a thread loads of a box
const INPUTS: u32 = 2u;
const GRADS: u32 = 2u;

// inputs of a box
const ID: u32 = (BD - 1u) * SD + 3u;
const IH: u32 = (BH - 1u) * SH + 3u;
const IW: u32 = (BQ * VOX - 1u) * SW + 3u;
// rows and planes in memory: taps and lines that neighbouring threads read lie in different banks
const LINE: u32 = IW | 1u;
const PLANE: u32 = IH * LINE + (3u * LINE + 7u * IH * LINE) % 8u;
const BLOCK: u32 = ID * PLANE;
const OW: u32 = BQ * VOX;
const GRAD_LINE: u32 = OW | 1u;
const GRAD_BLOCK: u32 = BD * BH * GRAD_LINE;
const FIRST_GRAD: u32 = INS * BLOCK;
const PAIRS: u32 = TEAMS * INS;
const JOBS: u32 = 9u * PAIRS;
const THREADS: u32 = JOBS * SHARES;
// holds a box, and in the end four columns of weights of each thread
const MEMORY: u32 = max(FIRST_GRAD + TEAMS * OUT * GRAD_BLOCK, 4u * THREADS);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// import load_grad

// What a workgroup owns: a sample, its first blocks; and the first output of a box.
struct Tile { n: u32, i0: u32, o0: u32 }

fn stage_inputs(tile: Tile, origin: vec3<u32>, lane: u32) {
  let sh = params.ih / UH;
  let sw = params.iw / UW;
  let size = (params.id / UD) * sh * sw;
  let low = vec3<u32>(params.pd, params.ph, params.pw);
  let high = low + vec3<u32>(params.id, params.ih, params.iw);
  // unroll
  for (var r = 0u; r < INPUTS; r++) {
    let e = r * THREADS + lane;
    let x = e % IW;
    let y = e / IW % IH;
    let z = e / (IW * IH) % ID;
    let i = e / (IW * IH * ID);
    let at = origin * vec3<u32>(SD, SH, SW) + vec3<u32>(z, y, x);
    let place = clamp(at, low, high - vec3<u32>(1u)) - low;
    let block = tile.n * params.src_blocks + min(tile.i0 + i, params.ins - 1u);
    let index = block * size + ((place.x / UD) * sh + place.y / UH) * sw + place.z / UW;
    let value = select(vec4<f32>(0.0), load(index, load_coef(block)), all(at >= low) && all(at < high));
    if (i < INS) { memory[i * BLOCK + z * PLANE + y * LINE + x] = value; }
  }
}

fn stage_grads(tile: Tile, origin: vec3<u32>, lane: u32) {
  let size = vec3<u32>(params.od, params.oh, params.ow);
  // unroll
  for (var r = 0u; r < GRADS; r++) {
    let e = r * THREADS + lane;
    let x = e % OW;
    let y = e / OW % BH;
    let z = e / (OW * BH) % BD;
    let o = e / (OW * BH * BD);
    let at = origin + vec3<u32>(z, y, x);
    let place = min(at, size - vec3<u32>(1u));
    let block = tile.n * params.grad_blocks + min(tile.o0 + o, params.outs - 1u);
    let index = ((block * size.x + place.x) * size.y + place.y) * size.z + place.z;
    let value = select(vec4<f32>(0.0), load_grad(index, load_grad_coef(block)), all(at < size));
    if (o < TEAMS * OUT) { memory[FIRST_GRAD + o * GRAD_BLOCK + (z * BH + y) * GRAD_LINE + x] = value; }
  }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let part = t % params.parts; t = t / params.parts;
  let i0 = t % params.in_tiles * INS; t = t / params.in_tiles;
  // workgroups beyond the last tile compute along and write nothing
  let tile = Tile(part / params.per_sample, i0, t * TEAMS * OUT);
  let job = lane % JOBS;
  let tap = job % 9u;
  let pair = job / 9u;
  let share = lane / JOBS;
  let inputs = pair % INS * BLOCK + tap / 3u * PLANE + tap % 3u * LINE;
  let grads = FIRST_GRAD + pair / INS * OUT * GRAD_BLOCK;
  var s: array<array<mat4x4<f32>, 3>, OUT>;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var kw = 0u; kw < 3u; kw++) { s[o][kw] = mat4x4<f32>(); }
  }
  let first = part % params.per_sample * params.each;
  let last = min(first + params.each, params.boxes);
  for (var box = first; box < last; box++) {
    let plane = box / (params.lines * params.runs);
    let origin = vec3<u32>(plane * BD, box / params.runs % params.lines * BH, box % params.runs * OW);
    stage_inputs(tile, origin, lane);
    stage_grads(tile, origin, lane);
    workgroupBarrier();
    // neighbouring shares are neighbouring lines
    for (var unit = share; unit < BD * BH * BQ; unit += SHARES) {
      let h = unit % BH;
      let d = unit / BH % BD;
      let q = unit / (BH * BD);
      let x_at = inputs + d * SD * PLANE + h * SH * LINE + q * VOX * SW;
      let g_at = grads + (d * BH + h) * GRAD_LINE + q * VOX;
      // the three inputs that an output reads; the next output shares some of them
      var u: array<vec4<f32>, 3>;
      // unroll
      for (var x = 0u; x < VOX; x++) {
        // unroll
        for (var kw = 0u; kw < 3u; kw++) {
          if (x == 0u || kw + SW >= 3u) { u[(x * SW + kw) % 3u] = memory[x_at + x * SW + kw]; }
        }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          let v = memory[g_at + o * GRAD_BLOCK + x];
          // unroll
          for (var kw = 0u; kw < 3u; kw++) {
            const at = (x * SW + kw) % 3u;
            s[o][kw][0] = fma(v, vec4<f32>(u[at].x), s[o][kw][0]);
            if (CIN > 1u) { s[o][kw][1] = fma(v, vec4<f32>(u[at].y), s[o][kw][1]); }
            if (CIN > 2u) {
              s[o][kw][2] = fma(v, vec4<f32>(u[at].z), s[o][kw][2]);
              s[o][kw][3] = fma(v, vec4<f32>(u[at].w), s[o][kw][3]);
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
      for (var column = 0u; column < 4u; column++) { memory[column * THREADS + lane] = s[o][kw][column]; }
      workgroupBarrier();
      for (var k = lane; k < JOBS * 4u; k += THREADS) {
        let other = k % JOBS;
        let at = k / JOBS * THREADS + other;
        var sum = memory[at];
        for (var others = 1u; others < SHARES; others++) { sum += memory[at + others * JOBS]; }
        let i = tile.i0 + other / 9u % INS;
        let out = tile.o0 + other / 9u / INS * OUT + o;
        if (i < params.ins && out < params.outs) {
          let block = ((params.part_first + part) * params.all_outs + params.out_first + out) * params.all_ins + params.in_first + i;
          partial[(block * 27u + other % 9u * 3u + kw) * 4u + k / JOBS] = sum;
        }
      }
      workgroupBarrier();
    }
  }
}
