// Weight gradient of the depthwise 3x3x3 convolution, as partial sums, neighbouring lanes neighbouring columns along W.
//
//   partial[p, c, i,j,k] = sum over part p of  load(dy)[n,c,d,h,w] * load(x)[n,c,d+i-1,h+j-1,w+k-1]
//
// Bindings (vec4 = 4 channel lanes): as in depthwise_weight.wgsl
// A lane takes a column (ROWS of h, one w) of one channel block of a sample and marches over `depth` planes with the last three
// gradient planes in registers. A workgroup takes `each` times as many columns as it has lanes, all of one block, and adds up
// its lanes' sums in a fixed order: no atomics, reproducible to the bit.
// Dispatch: a workgroup for each part and block, parts fastest.
// Source: the chain rule of depthwise.wgsl.

struct Params {
  blocks: u32, d: u32, h: u32, w: u32,
  lines: u32, depth: u32, columns: u32, each: u32, parts: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_blocks: u32, block_first: u32, per_sample: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;

const THREADS: u32 = 64u;
const ROWS: u32 = 2u;
// rows that a lane reads
const READ: u32 = 4u;
// taps whose sums of all lanes fit workgroup memory, and lanes that add up one tap
const TAPS: u32 = 16u;
const TEAM: u32 = THREADS / TAPS;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, THREADS * TAPS>;

// import load_grad

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = wg.x + wg.y * ng.x;
  let part = t % params.parts;
  // workgroups beyond the last block compute along and write nothing
  let own = t / params.parts;
  let block = min(own, params.blocks - 1u);
  var s: array<vec4<f32>, 27>;
  // unroll
  for (var i = 0u; i < 27u; i++) { s[i] = vec4<f32>(0.0); }
  let sw = params.w / UW;
  let source_plane = (params.h / UH) * sw;
  let plane_size = params.h * params.w;
  let n = part / params.per_sample;
  let source_block = n * params.src_blocks + block;
  let grad_block = n * params.grad_blocks + block;
  let c = load_coef(source_block);
  let g = load_grad_coef(grad_block);
  let source_start = source_block * (params.d / UD) * source_plane;
  let first = part % params.per_sample * params.each * THREADS + lane;
  for (var round = 0u; round < params.each; round++) {
    let column = first + round * THREADS;
    if (column < params.columns) {
      let w = column % params.w;
      let h = column / params.w % params.lines * ROWS;
      let begin = column / (params.w * params.lines) * params.depth;
      let end = min(begin + params.depth, params.d);
      let grad_start = grad_block * params.d * plane_size + h * params.w + w;
      var g0: array<vec4<f32>, ROWS>;
      var g1: array<vec4<f32>, ROWS>;
      var g2: array<vec4<f32>, ROWS>;
      // unroll
      for (var r = 0u; r < ROWS; r++) { g0[r] = vec4<f32>(0.0); g1[r] = vec4<f32>(0.0); g2[r] = vec4<f32>(0.0); }
      // input plane next-1 meets gradient planes next (tap 0), next-1 (tap 1), next-2 (tap 2): g0, g1, g2
      for (var next = begin; next <= end + 1u; next++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) {
          g2[r] = g1[r];
          g1[r] = g0[r];
          let inside = next < end && h + r < params.h;
          let at = grad_start + select(0u, next * plane_size + r * params.w, inside);
          g0[r] = select(vec4<f32>(0.0), load_grad(at, g), inside);
        }
        if (next > 0u && next <= params.d) {
          let plane_start = source_start + ((next - 1u) / UD) * source_plane;
          // unroll
          for (var j = 0u; j < READ; j++) {
            let row = h + j;
            let inside = row >= 1u && row <= params.h;
            let row_start = plane_start + (clamp(row, 1u, params.h) - 1u) / UH * sw;
            // unroll
            for (var k = 0u; k < 3u; k++) {
              let at = w + k;
              let loaded = load(row_start + (clamp(at, 1u, params.w) - 1u) / UW, c);
              let x = select(vec4<f32>(0.0), loaded, inside && at >= 1u && at <= params.w);
              // unroll
              for (var r = 0u; r < ROWS; r++) {
                // input row j meets output row r through tap j - r
                if (j >= r && j < r + 3u) {
                  const tap = min(j - min(j, r), 2u) * 3u + k;
                  s[tap] = fma(g0[r], x, s[tap]);
                  s[9u + tap] = fma(g1[r], x, s[9u + tap]);
                  s[18u + tap] = fma(g2[r], x, s[18u + tap]);
                }
              }
            }
          }
        }
      }
    }
  }
  // unroll
  for (var half = 0u; half < 2u; half++) {
    // unroll
    for (var i = 0u; i < TAPS; i++) {
      if (half * TAPS + i < 27u) { sums[i * THREADS + lane] = s[min(half * TAPS + i, 26u)]; }
    }
    workgroupBarrier();
    let start = lane / TEAM * THREADS + lane % TEAM;
    var sum = sums[start];
    for (var other = 1u; other < TAPS; other++) { sum += sums[start + other * TEAM]; }
    workgroupBarrier();
    sums[lane] = sum;
    workgroupBarrier();
    let tap = half * TAPS + lane;
    if (lane < TAPS && tap < 27u && own < params.blocks) {
      let at = ((params.part_first + part) * params.all_blocks + params.block_first + block) * 27u + tap;
      partial[at] = sums[lane * TEAM] + sums[lane * TEAM + 1u] + sums[lane * TEAM + 2u] + sums[lane * TEAM + 3u];
    }
    workgroupBarrier();
  }
}
