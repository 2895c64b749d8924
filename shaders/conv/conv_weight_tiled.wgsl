// Weight gradient of the convolution of conv.wgsl for three taps an axis, as partial sums, from boxes in workgroup memory.
//
//   partial[p,o,i,kd,kh,kw] = sum over part p of  load(dy)[n,o,d,h,w] * load(x)[n,i,d*SD+kd-pd,h*SH+kh-ph,w*SW+kw-pw]
//
// Bindings (vec4 = 4 channel lanes):
//   src [N, SB, ID/UD, IH/UH, IW/UW], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, OD, OH, OW], gcoef (GNORM, GACT)
//   partial [parts, OB, IB, 27, 4], one vector an input lane
// A workgroup owns TEAMS * OUT output blocks, INS input blocks and one part of a sample: so many boxes of BD planes and BH lines of VOX
// outputs along W. It loads what a box reads once, in few goes: as many planes and lines (of gradients blocks, too) at a time as it has
// lanes for. Rows of both lie in one array, and a lane's place in a row is known while compiling, so that a row is checked once. A thread owns OUT output
// blocks, one input block, one kd, one kh and all kw, and takes every SHARES-th line of a box; an input that it read serves three taps of
// all its outputs. In the end the workgroup adds up its threads' shares in a fixed order: no atomics, reproducible to the bit.
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
const BD: u32 = 3u;
const BH: u32 = 7u;
const VOX: u32 = 5u;
// times that the lanes of a workgroup load: along planes and lines of inputs, along blocks, planes and lines of gradients
const INPUT_PLANES: u32 = 3u;
const INPUT_LINES: u32 = 1u;
const GRAD_BLOCKS: u32 = 4u;
const GRAD_PLANES: u32 = 1u;
const GRAD_LINES: u32 = 1u;
// rows of a plane of inputs in memory: taps and lines that neighbouring threads read lie in different banks
const PLANE: u32 = 11u;

// inputs of a box
const ID: u32 = (BD - 1u) * SD + 3u;
const IH: u32 = (BH - 1u) * SH + 3u;
const IW: u32 = (VOX - 1u) * SW + 3u;
const LINE: u32 = IW | 1u;
const BLOCK: u32 = ID * PLANE;
const FIRST_GRAD: u32 = INS * BLOCK;
// what lies side by side each time: lines and planes of inputs, of gradients, and blocks of these
const IY: u32 = (IH + INPUT_LINES - 1u) / INPUT_LINES;
const IZ: u32 = (ID + INPUT_PLANES - 1u) / INPUT_PLANES;
const GY: u32 = (BH + GRAD_LINES - 1u) / GRAD_LINES;
const GZ: u32 = (BD + GRAD_PLANES - 1u) / GRAD_PLANES;
const GO: u32 = (TEAMS * OUT + GRAD_BLOCKS - 1u) / GRAD_BLOCKS;
const INPUT_LANES: u32 = IW * IY * IZ;
const GRAD_LANES: u32 = VOX * GY * GZ * GO;
const PAIRS: u32 = TEAMS * INS;
const JOBS: u32 = 9u * PAIRS;
const THREADS: u32 = JOBS * SHARES;
// holds a box, and in the end four columns of weights of each thread
const ROWS: u32 = max(FIRST_GRAD + TEAMS * OUT * BD * BH, (4u * THREADS + LINE - 1u) / LINE);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> memory: array<array<vec4<f32>, LINE>, ROWS>;

// import load_grad

// What a workgroup owns: a sample, its first blocks.
struct Tile { n: u32, i0: u32, o0: u32 }

// Inputs before the source wrap around and lie beyond it.
fn stage_inputs(tile: Tile, origin: vec3<u32>, lane: u32) {
  let plane = (params.ih / UH) * (params.iw / UW);
  let size = (params.id / UD) * plane;
  let own = vec3<u32>(lane / (IW * IY) % IZ, lane / IW % IY, lane % IW);
  let low = origin * vec3<u32>(SD, SH, SW) + own - vec3<u32>(params.pd, params.ph, params.pw);
  let loads = INPUT_LANES == THREADS || lane < INPUT_LANES;
  let column_inside = loads && low.z < params.iw;
  // unroll
  for (var i = 0u; i < INS; i++) {
    let block = tile.n * params.src_blocks + min(tile.i0 + i, params.ins - 1u);
    let c = load_coef(block);
    var fresh: array<array<vec4<f32>, INPUT_LINES>, INPUT_PLANES>;
    // unroll
    for (var r = 0u; r < INPUT_PLANES; r++) {
      let z = low.x + r * IZ;
      // unroll
      for (var s = 0u; s < INPUT_LINES; s++) {
        let y = low.y + s * IY;
        let inside = column_inside && z < params.id && y < params.ih;
        let place = (z / UD) * plane + (y / UH) * (params.iw / UW) + low.z / UW;
        fresh[r][s] = select(vec4<f32>(0.0), load(block * size + select(0u, place, inside), c), inside);
      }
    }
    // unroll
    for (var r = 0u; r < INPUT_PLANES; r++) {
      // unroll
      for (var s = 0u; s < INPUT_LINES; s++) {
        let within = (r * IZ + IZ <= ID || own.x + r * IZ < ID) && (s * IY + IY <= IH || own.y + s * IY < IH);
        if (loads && within) { memory[i * BLOCK + (own.x + r * IZ) * PLANE + own.y + s * IY][own.z] = fresh[r][s]; }
      }
    }
  }
}

fn stage_grads(tile: Tile, origin: vec3<u32>, lane: u32) {
  let plane = params.oh * params.ow;
  let own = vec3<u32>(lane / (VOX * GY) % GZ, lane / VOX % GY, lane % VOX);
  let first = lane / (VOX * GY * GZ) % GO;
  let low = origin + own;
  let loads = GRAD_LANES == THREADS || lane < GRAD_LANES;
  let column_inside = loads && low.z < params.ow;
  // unroll
  for (var q = 0u; q < GRAD_BLOCKS; q++) {
    let o = first + q * GO;
    let block = tile.n * params.grad_blocks + min(tile.o0 + o, params.outs - 1u);
    let c = load_grad_coef(block);
    var fresh: array<array<vec4<f32>, GRAD_LINES>, GRAD_PLANES>;
    // unroll
    for (var r = 0u; r < GRAD_PLANES; r++) {
      let z = low.x + r * GZ;
      // unroll
      for (var s = 0u; s < GRAD_LINES; s++) {
        let y = low.y + s * GY;
        let inside = column_inside && z < params.od && y < params.oh;
        let place = z * plane + y * params.ow + low.z;
        fresh[r][s] = select(vec4<f32>(0.0), load_grad(block * (params.od * plane) + select(0u, place, inside), c), inside);
      }
    }
    // unroll
    for (var r = 0u; r < GRAD_PLANES; r++) {
      // unroll
      for (var s = 0u; s < GRAD_LINES; s++) {
        let within = (q * GO + GO <= TEAMS * OUT || o < TEAMS * OUT) && (r * GZ + GZ <= BD || own.x + r * GZ < BD) && (s * GY + GY <= BH || own.y + s * GY < BH);
        if (loads && within) { memory[FIRST_GRAD + (o * BD + own.x + r * GZ) * BH + own.y + s * GY][own.z] = fresh[r][s]; }
      }
    }
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
  let inputs = pair % INS * BLOCK + tap / 3u * PLANE + tap % 3u;
  let grads = FIRST_GRAD + pair / INS * OUT * (BD * BH);
  var s: array<array<mat4x4<f32>, 3>, OUT>;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var kw = 0u; kw < 3u; kw++) { s[o][kw] = mat4x4<f32>(); }
  }
  let first = part % params.per_sample * params.each;
  let last = min(first + params.each, params.boxes);
  // the place of a box among boxes: divided once, then counted on
  var cell = vec3<u32>(first / (params.lines * params.runs), first / params.runs % params.lines, first % params.runs);
  for (var box = first; box < last; box++) {
    let origin = cell * vec3<u32>(BD, BH, VOX);
    stage_inputs(tile, origin, lane);
    stage_grads(tile, origin, lane);
    workgroupBarrier();
    // neighbouring shares are neighbouring lines
    for (var unit = share; unit < BD * BH; unit += SHARES) {
      let x_row = inputs + unit / BH * (SD * PLANE) + unit % BH * SH;
      let g_row = grads + unit;
      // the three inputs that an output reads; the next output shares some of them
      var u: array<vec4<f32>, 3>;
      // unroll
      for (var x = 0u; x < VOX; x++) {
        // unroll
        for (var kw = 0u; kw < 3u; kw++) {
          if (x == 0u || kw + SW >= 3u) { u[(x * SW + kw) % 3u] = memory[x_row][x * SW + kw]; }
        }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          let v = memory[g_row + o * (BD * BH)][x];
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
    cell.z++;
    if (cell.z == params.runs) {
      cell = vec3<u32>(cell.x, cell.y + 1u, 0u);
      if (cell.y == params.lines) { cell = vec3<u32>(cell.x + 1u, 0u, 0u); }
    }
  }
  // a thread adds up the shares of one column of one job
  let other = lane % JOBS;
  let column = lane / JOBS;
  let i = tile.i0 + other / 9u % INS;
  let out = tile.o0 + other / 9u / INS * OUT;
  let block = ((params.part_first + part) * params.all_outs + params.out_first + out) * params.all_ins + params.in_first + i;
  let target_index = (block * 27u + other % 9u * 3u) * 4u + column;
  // unroll
  for (var o = 0u; o < OUT; o++) {
    // unroll
    for (var kw = 0u; kw < 3u; kw++) {
      // unroll
      for (var c = 0u; c < 4u; c++) {
        let to = c * THREADS + lane;
        memory[to / LINE][to % LINE] = s[o][kw][c];
      }
      workgroupBarrier();
      // all lanes read, so that where they read is reckoned once for all sums
      let start = column % 4u * THREADS + other;
      var sum = memory[start / LINE][start % LINE];
      // unroll
      for (var others = 0u; others < SHARES; others++) {
        if (others > 0u) {
          let next = start + others * JOBS;
          sum += memory[next / LINE][next % LINE];
        }
      }
      if (column < 4u && i < params.ins && out + o < params.outs) { partial[target_index + (o * params.all_ins * 27u + kw) * 4u] = sum; }
      workgroupBarrier();
    }
  }
}
