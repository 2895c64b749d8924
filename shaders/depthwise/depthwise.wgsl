// Depthwise 3x3x3 convolution, stride 1, zero padding 1, and its input gradient.
//
//   y[n,c,d,h,w] = b[c] + sum_{i,j,k} w[c,i,j,k] * load(x)[n,c,d+i-1,h+j-1,w+k-1]
//
// With FLIP the taps are mirrored, which is the gradient with respect to the input; the load is then that of an
// output gradient. `load` applies instance norm and LeakyReLU (NORM, ACT) or their derivative (GRAD) on the fly, and
// reads an upsampled tensor through divided indices (UD, UH, UW).
//
// Bindings (vec4 = 4 channel lanes; CB channel blocks):
//   src    [N, SB, D/UD, H/UH, W/UW]   raw tensor, or with GRAD the gradient of the normalised, activated tensor
//   aux    [N, SB, D, H, W]            with GRAD the raw tensor (else unused)
//   coef   [N, SB, 4] mean, scale, shift, 1/std; with GRAD [N, SB, 5] mean, scale, shift, m1, k
//   weight [CB, 27], bias [CB], out [N, OB, D, H, W]
// A thread makes ROWS x QUAD outputs along H and W and marches over `chunk` planes of D: every input plane is read once. A
// workgroup has threads of one channel block, so that its taps are the same for all lanes.
// With the section MOMENTS each workgroup also gives mean, summed squared deviation and count of its outputs:
//   moments [all blocks of out, groups, 3]; `out_first` is the first block of the dispatch
// Source: MICCAI 2019, "3D U2-Net", section 2 (domain adapters).

struct Params {
  n: u32, blocks: u32, d: u32, h: u32,
  w: u32, chunk: u32, chunks: u32, quads: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_first: u32,
  src_base: u32, aux_base: u32, out_base: u32, groups: u32,
  // section MOMENTS
  out_first: u32,
  // end MOMENTS
}

override FLIP: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;
// whether a thread keeps the taps in registers, or reads them where it needs them, as a workgroup shares them
override HELD: bool = true;
// whether rows beyond the volume are loaded as well and set to zero, so that no load waits for a branch
override AHEAD: bool = false;

const QUAD: u32 = 4u;
const ROWS: u32 = 1u;
// rows and columns that a thread reads, outputs that it makes in a plane
const READ: u32 = 3u;
const ROW: u32 = 6u;
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

fn tap_of(first: u32, i: u32) -> vec4<f32> {
  if (FLIP) { return weight[first + 26u - i]; }
  return weight[first + i];
}

// section MOMENTS
// import group_moments

var<workgroup> made: atomic<u32>;
// otherwise
struct Place { @builtin(local_invocation_index) lane: u32 }
// end MOMENTS

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, place: Place) {
  // the workgroup's share of a channel block
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let block = t % params.blocks; t = t / params.blocks;
  let n = t;
  var thread = group * WG + place.lane;
  let quad = thread % params.quads; thread = thread / params.quads;
  let lines = (params.h + ROWS - 1u) / ROWS;
  let h = thread % lines * ROWS;
  let chunk = thread / lines;
  // section MOMENTS
  var count = 0u;
  var shift = vec4<f32>(0.0);
  var s1 = vec4<f32>(0.0);
  var s2 = vec4<f32>(0.0);
  // end MOMENTS
  if (n < params.n && chunk < params.chunks) {
    let source_block = n * params.src_blocks + block;
    let c = load_coef(params.coef_first + source_block);
    let taps = (params.weight_first + block) * 27u;
    var k: array<vec4<f32>, 27>;
    if (HELD) {
      // unroll
      for (var i = 0u; i < 27u; i++) { k[i] = tap_of(taps, i); }
    }
    var b = vec4<f32>(0.0);
    if (BIAS) { b = bias[params.weight_first + block]; }
    let w0 = quad * QUAD;
    let d0 = chunk * params.chunk;
    let d1 = min(d0 + params.chunk, params.d);
    let sh = params.h / UH;
    let sw = params.w / UW;
    let source_plane = sh * sw;
    let source_start = source_block * (params.d / UD) * source_plane;
    let out_start = params.out_base + ((n * params.out_blocks + block) * params.d) * params.h * params.w + h * params.w + w0;
    var a0: array<vec4<f32>, OUTS>;
    var a1: array<vec4<f32>, OUTS>;
    var a2: array<vec4<f32>, OUTS>;
    // unroll
    for (var o = 0u; o < OUTS; o++) { a0[o] = vec4<f32>(0.0); a1[o] = vec4<f32>(0.0); a2[o] = vec4<f32>(0.0); }
    // `plane` is the input plane plus one, so that it never goes negative
    for (var plane = d0; plane < d1 + 2u; plane++) {
      if (plane >= 1u && plane <= params.d) {
        let plane_start = source_start + ((plane - 1u) / UD) * source_plane;
        // unroll
        for (var j = 0u; j < READ; j++) {
          let row = h + j;
          let inside = row >= 1u && row <= params.h;
          if (AHEAD || inside) {
            let row_start = plane_start + ((clamp(row, 1u, params.h) - 1u) / UH) * sw;
            var x: array<vec4<f32>, ROW>;
            // unroll
            for (var q = 0u; q < ROW; q++) {
              let at = w0 + q;
              let column = clamp(at, 1u, params.w) - 1u;
              x[q] = select(vec4<f32>(0.0), load(row_start + column / UW, c), inside && at >= 1u && at <= params.w);
            }
            // unroll
            for (var r = 0u; r < ROWS; r++) {
              // input row j meets output row r through tap j - r
              if (j >= r && j < r + 3u) {
                const tap = min(j - min(j, r), 2u) * 3u;
                // unroll
                for (var i = 0u; i < 3u; i++) {
                  if (!HELD) {
                    k[tap + i] = tap_of(taps, tap + i);
                    k[9u + tap + i] = tap_of(taps, 9u + tap + i);
                    k[18u + tap + i] = tap_of(taps, 18u + tap + i);
                  }
                  // unroll
                  for (var o = 0u; o < QUAD; o++) {
                    a0[r * QUAD + o] = fma(k[tap + i], x[o + i], a0[r * QUAD + o]);
                    a1[r * QUAD + o] = fma(k[9u + tap + i], x[o + i], a1[r * QUAD + o]);
                    a2[r * QUAD + o] = fma(k[18u + tap + i], x[o + i], a2[r * QUAD + o]);
                  }
                }
              }
            }
          }
        }
      }
      if (plane >= d0 + 2u) {
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
              if (count == 0u) { shift = y; }
              let u = y - shift;
              s1 += u;
              s2 = fma(u, u, s2);
              count += 1u;
              // end MOMENTS
            }
          }
        }
      }
      // unroll
      for (var o = 0u; o < OUTS; o++) { a2[o] = a1[o]; a1[o] = a0[o]; a0[o] = vec4<f32>(0.0); }
    }
  }
  // section MOMENTS
  let mean = s1 / max(f32(count), 1.0);
  let own = Moments(shift + mean, max(s2 - s1 * mean, vec4<f32>(0.0)));
  if (place.lane == 0u) { atomicStore(&made, 0u); }
  workgroupBarrier();
  atomicAdd(&made, count);
  workgroupBarrier();
  let total = f32(atomicLoad(&made));
  let all = group_moments(own, f32(count), total, place);
  if (place.lane == 0u && n < params.n) {
    let part = ((params.out_first + n * params.out_blocks + block) * params.groups + group) * 3u;
    moments[part] = all.mean;
    moments[part + 1u] = all.square;
    moments[part + 2u] = vec4<f32>(total);
  }
  // end MOMENTS
}
