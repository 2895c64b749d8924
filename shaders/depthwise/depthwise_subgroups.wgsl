// Depthwise 3x3x3 convolution, stride 1, zero padding 1, and its input gradient, with inputs shared along W by subgroup shuffles.
//
//   y[n,c,d,h,w] = b[c] + sum_{i,j,k} w[c,i,j,k] * load(x)[n,c,d+i-1,h+j-1,w+k-1]
//
// Bindings, switches and loads: as in depthwise.wgsl.
// A thread makes ROWS x QUAD outputs along H and W and marches over `chunk` planes of D. It loads its own columns of a row once; the
// one before and the one after come from its neighbours: a workgroup is one subgroup of SUB invocations. With HALO, where a line takes
// several subgroups, the outermost invocations load them. `quads` invocations share a line: a divisor of SUB, or with HALO a multiple.
// Every invocation takes part in every shuffle: those without outputs of their own repeat the last one's work.
// `own` invocations serve a channel block of a sample; with APART they are whole subgroups.
// With the section MOMENTS each thread, or with APART each subgroup, also gives mean, summed squared deviation and count of its outputs:
//   moments [all blocks of out, parts, 3], where parts are those of a block; `out_first` is the first block of the dispatch
// Source: MICCAI 2019, "3D U2-Net", section 2 (domain adapters).
// needs subgroups

struct Params {
  n: u32, blocks: u32, d: u32, h: u32,
  w: u32, chunk: u32, chunks: u32, quads: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_first: u32,
  src_base: u32, aux_base: u32, out_base: u32, own: u32,
  // section MOMENTS
  out_first: u32,
  // end MOMENTS
}

override FLIP: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override HALO: bool = false;
override APART: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const SUB: u32 = 8u;
const ROWS: u32 = 1u;
const QUAD: u32 = 4u;
// inputs of a row, rows that a thread reads, outputs that it makes in a plane
const ROW: u32 = 6u;
const READ: u32 = 3u;
const OUTS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
// section MOMENTS
@group(0) @binding(7) var<storage, read_write> moments: array<vec4<f32>>;
// end MOMENTS

// import load

@compute @workgroup_size(SUB)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(subgroup_invocation_id) member: u32) {
  var t = (wg.x + wg.y * ng.x) * SUB + member;
  let thread = t % params.own; t = t / params.own;
  let block = t % params.blocks; t = t / params.blocks;
  let n = min(t, params.n - 1u);
  let quad = thread % params.quads;
  let lines = (params.h + ROWS - 1u) / ROWS;
  let h = thread / params.quads % lines * ROWS;
  let chunk = thread / params.quads / lines;
  let w0 = quad * QUAD;
  let real = t < params.n && w0 < params.w && chunk < params.chunks;
  let source_block = n * params.src_blocks + block;
  let c = load_coef(params.coef_first + source_block);
  var k: array<vec4<f32>, 27>;
  // unroll
  for (var i = 0u; i < 27u; i++) {
    if (FLIP) { k[i] = weight[(params.weight_first + block) * 27u + (26u - i)]; } else { k[i] = weight[(params.weight_first + block) * 27u + i]; }
  }
  var b = vec4<f32>(0.0);
  if (BIAS) { b = bias[params.weight_first + block]; }
  let d0 = chunk * params.chunk;
  let d1 = min(d0 + params.chunk, params.d);
  let sh = params.h / UH;
  let sw = params.w / UW;
  let source_plane = sh * sw;
  let source_start = source_block * (params.d / UD) * source_plane;
  let out_start = params.out_base + ((n * params.out_blocks + block) * params.d) * params.h * params.w + h * params.w + w0;
  // whether the columns next to a thread's own are there, and its invocation must load one
  let left = w0 > 0u;
  let right = w0 + QUAD < params.w;
  let outer = (member == 0u && left) || (member == SUB - 1u && right);
  let halo = select(min(w0 + QUAD, params.w - 1u), max(w0, 1u) - 1u, member == 0u);
  var a0: array<vec4<f32>, OUTS>;
  var a1: array<vec4<f32>, OUTS>;
  var a2: array<vec4<f32>, OUTS>;
  // unroll
  for (var o = 0u; o < OUTS; o++) { a0[o] = vec4<f32>(0.0); a1[o] = vec4<f32>(0.0); a2[o] = vec4<f32>(0.0); }
  // section MOMENTS
  var shift = vec4<f32>(0.0);
  var s1 = vec4<f32>(0.0);
  var s2 = vec4<f32>(0.0);
  // end MOMENTS
  // every invocation marches over as many planes, so that all are there to shuffle; `plane` is the input plane plus one
  for (var step = 0u; step < params.chunk + 2u; step++) {
    let plane = d0 + step;
    let plane_start = source_start + ((clamp(plane, 1u, params.d) - 1u) / UD) * source_plane;
    // unroll
    for (var j = 0u; j < READ; j++) {
      let row = h + j;
      let inside = plane >= 1u && plane <= params.d && row >= 1u && row <= params.h;
      let row_start = plane_start + ((clamp(row, 1u, params.h) - 1u) / UH) * sw;
      var x: array<vec4<f32>, ROW>;
      // unroll
      for (var q = 0u; q < QUAD; q++) {
        let column = min(w0 + q, params.w - 1u);
        x[q + 1u] = select(vec4<f32>(0.0), load(row_start + column / UW, c), inside && w0 + q < params.w);
      }
      x[0] = subgroupShuffleUp(x[QUAD], 1u);
      x[QUAD + 1u] = subgroupShuffleDown(x[1], 1u);
      if (HALO && outer) {
        let v = select(vec4<f32>(0.0), load(row_start + halo / UW, c), inside);
        if (member == 0u) { x[0] = v; } else { x[QUAD + 1u] = v; }
      }
      x[0] = select(vec4<f32>(0.0), x[0], left);
      x[QUAD + 1u] = select(vec4<f32>(0.0), x[QUAD + 1u], right);
      // unroll
      for (var r = 0u; r < ROWS; r++) {
        // input row j meets output row r through tap j - r
        if (j >= r && j < r + 3u) {
          const tap = min(j - min(j, r), 2u) * 3u;
          // unroll
          for (var o = 0u; o < QUAD; o++) {
            const at = r * QUAD + o;
            a0[at] = fma(k[tap + 2u], x[o + 2u], fma(k[tap + 1u], x[o + 1u], fma(k[tap], x[o], a0[at])));
            a1[at] = fma(k[tap + 11u], x[o + 2u], fma(k[tap + 10u], x[o + 1u], fma(k[tap + 9u], x[o], a1[at])));
            a2[at] = fma(k[tap + 20u], x[o + 2u], fma(k[tap + 19u], x[o + 1u], fma(k[tap + 18u], x[o], a2[at])));
          }
        }
      }
    }
    if (real && step >= 2u && plane < d1 + 2u) {
      // unroll
      for (var r = 0u; r < ROWS; r++) {
        let at = out_start + ((plane - 2u) * params.h + r) * params.w;
        // unroll
        for (var o = 0u; o < QUAD; o++) {
          if (w0 + o < params.w && h + r < params.h) {
            var y = a2[r * QUAD + o];
            if (BIAS) { y = y + b; }
            if (ACC) { y = y + out[at + o]; }
            out[at + o] = y;
            // section MOMENTS
            if (r + o == 0u && step == 2u) { shift = y; }
            let u = y - shift;
            s1 += u;
            s2 = fma(u, u, s2);
            // end MOMENTS
          }
        }
      }
    }
    // unroll
    for (var o = 0u; o < OUTS; o++) { a2[o] = a1[o]; a1[o] = a0[o]; a0[o] = vec4<f32>(0.0); }
  }
  // section MOMENTS
  var count = 0.0;
  if (real) { count = f32((min(w0 + QUAD, params.w) - w0) * (min(h + ROWS, params.h) - h) * (d1 - d0)); }
  let ahead = s1 / max(count, 1.0);
  let square = max(s2 - s1 * ahead, vec4<f32>(0.0));
  let mean = shift + ahead;
  let first = (params.out_first + n * params.out_blocks + block) * params.own;
  if (APART) {
    // relative to the first invocation's mean, which has outputs, so that sums keep their digits
    let reference = subgroupBroadcast(mean, 0u);
    let total = subgroupAdd(count);
    let sum = subgroupAdd(count * (mean - reference));
    let squares = subgroupAdd(square + count * (mean - reference) * (mean - reference));
    if (member == 0u && t < params.n) {
      let part = (first + thread) / SUB * 3u;
      moments[part] = reference + sum / total;
      moments[part + 1u] = max(squares - sum * sum / total, vec4<f32>(0.0));
      moments[part + 2u] = vec4<f32>(total);
    }
  } else if (t < params.n) {
    let part = (first + thread) * 3u;
    moments[part] = mean;
    moments[part + 1u] = square;
    moments[part + 2u] = vec4<f32>(count);
  }
  // end MOMENTS
}
