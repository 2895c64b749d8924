// Weight gradient of the depthwise 3x3x3 convolution, as partial sums.
//
//   partial[p, c, i,j,k] = sum over part p of  load(dy)[n,c,d,h,w] * load(x)[n,c,d+i-1,h+j-1,w+k-1]
//
// Bindings (vec4 = 4 channel lanes):
//   src [N, SB, D/UD, H/UH, W/UW] raw input, coef [N, SB, 4] (NORM, ACT as in depthwise.wgsl)
//   dy, raw [N, GB, D, H, W], gcoef [N, GB, 5]: output gradient (GNORM, GACT; raw unused where both are off)
//   partial [parts, blocks, 27]
// A thread takes `columns` columns (ROWS of h, 4 of w) of one channel block of a sample and marches over all of D with the last
// three gradient planes in registers; it writes its own partial, so that sums are bit-reproducible without atomics.
// Source: the chain rule of depthwise.wgsl.

struct Params {
  blocks: u32, d: u32, h: u32,
  w: u32, quads: u32, columns: u32, parts: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_blocks: u32, block_first: u32, per_sample: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const ROWS: u32 = 1u;
// rows that a thread reads, gradients that it holds of a plane
const READ: u32 = 3u;
const GRADS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

// import load_grad

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let part = t % params.parts;
  let block = t / params.parts;
  if (block < params.blocks) {
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
    let lines = (params.h + ROWS - 1u) / ROWS;
    for (var column = 0u; column < params.columns; column++) {
      // neighbouring threads take neighbouring columns
      let at = column * params.per_sample + part % params.per_sample;
      if (at < params.quads * lines) {
        let w0 = (at % params.quads) * 4u;
        let h = at / params.quads * ROWS;
        let grad_start = grad_block * params.d * plane_size + h * params.w + w0;
        var g0: array<vec4<f32>, GRADS>;
        var g1: array<vec4<f32>, GRADS>;
        var g2: array<vec4<f32>, GRADS>;
        // unroll
        for (var o = 0u; o < GRADS; o++) { g0[o] = vec4<f32>(0.0); g1[o] = vec4<f32>(0.0); g2[o] = vec4<f32>(0.0); }
        // input plane p meets output planes p+1 (tap 0), p (tap 1), p-1 (tap 2): g0, g1, g2; plane -1 only fills g0
        for (var next = 0u; next <= params.d; next++) {
          // unroll
          for (var o = 0u; o < GRADS; o++) { g2[o] = g1[o]; g1[o] = g0[o]; g0[o] = vec4<f32>(0.0); }
          if (next < params.d) {
            // unroll
            for (var r = 0u; r < ROWS; r++) {
              // unroll
              for (var o = 0u; o < 4u; o++) {
                if (w0 + o < params.w && h + r < params.h) {
                  g0[r * 4u + o] = load_grad(grad_start + next * plane_size + r * params.w + o, g);
                }
              }
            }
          }
          if (next > 0u) {
            let plane_start = source_start + ((next - 1u) / UD) * source_plane;
            // unroll
            for (var j = 0u; j < READ; j++) {
              let row = h + j;
              if (row >= 1u && row <= params.h) {
                let row_start = plane_start + ((row - 1u) / UH) * sw;
                var x: array<vec4<f32>, 6>;
                // unroll
                for (var q = 0u; q < 6u; q++) {
                  let wq = w0 + q;
                  let clamped = clamp(wq, 1u, params.w) - 1u;
                  x[q] = select(vec4<f32>(0.0), load(row_start + clamped / UW, c), wq >= 1u && wq <= params.w);
                }
                // unroll
                for (var r = 0u; r < ROWS; r++) {
                  // input row j meets output row r through tap j - r
                  if (j >= r && j < r + 3u) {
                    const tap = min(j - min(j, r), 2u) * 3u;
                    // unroll
                    for (var i = 0u; i < 3u; i++) {
                      // unroll
                      for (var o = 0u; o < 4u; o++) {
                        s[tap + i] = fma(g0[r * 4u + o], x[o + i], s[tap + i]);
                        s[9u + tap + i] = fma(g1[r * 4u + o], x[o + i], s[9u + tap + i]);
                        s[18u + tap + i] = fma(g2[r * 4u + o], x[o + i], s[18u + tap + i]);
                      }
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    // unroll
    for (var i = 0u; i < 27u; i++) { partial[((params.part_first + part) * params.all_blocks + params.block_first + block) * 27u + i] = s[i]; }
  }
}
