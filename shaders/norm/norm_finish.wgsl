// Second pass of instance norm: merges the parts and writes what a consumer needs to normalise on load.
//
//   mean, var = biased moments of x[n,c];  coef = (mean, gamma/sqrt(var+eps), beta, 1/sqrt(var+eps))
//
// Bindings (vec4 = 4 channel lanes): partial [N*CB, chunks*LANES, 2] of norm_stats.wgsl, or with WHOLE [N*CB, chunks, 2] of
// norm_stats_whole.wgsl, or with COUNTED [N*CB, chunks, 3] of convolutions that give moments and their counts along;
// gamma [CB], beta [CB], coef [N*CB, 4]. One workgroup a (sample, channel block): lanes merge strided parts, then a tree.
// Source: Chan, Golub, LeVeque 1983; instance norm of Ulyanov et al. 2016 with biased variance.

struct Params { blocks: u32, channel_blocks: u32, voxels: u32, chunk: u32, chunks: u32, eps: f32 }

override WHOLE: bool = false;
override COUNTED: bool = false;
const LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> coef: array<vec4<f32>>;

var<workgroup> means: array<vec4<f32>, LANES>;
var<workgroup> squares: array<vec4<f32>, LANES>;
var<workgroup> counts: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let block = wg.x + wg.y * ng.x;
  var mean = vec4<f32>(0.0);
  var square = vec4<f32>(0.0);
  var count = 0.0;
  if (block < params.blocks) {
    for (var p = select(0u, lane, WHOLE || COUNTED); p < params.chunks; p += select(1u, LANES, WHOLE || COUNTED)) {
      var other = min(params.chunk, params.voxels - p * params.chunk);
      var at = (block * params.chunks + p) * 2u;
      if (COUNTED) {
        at = (block * params.chunks + p) * 3u;
        // parts of a known size do not tell it
        if (params.chunk == 0u) { other = u32(partial[at + 2u].x); }
      } else if (!WHOLE) {
        // what this lane of norm_stats.wgsl summed
        let run = params.chunk / (LANES / 8u);
        let first = p * params.chunk + lane / 8u * run + lane % 8u;
        let end = min(p * params.chunk + (lane / 8u + 1u) * run, params.voxels);
        other = (max(end, first) - first + 7u) / 8u;
        at = ((block * params.chunks + p) * LANES + lane) * 2u;
      }
      if (other > 0u) {
        let delta = partial[at] - mean;
        let total = count + f32(other);
        mean += delta * (f32(other) / total);
        square += partial[at + 1u] + delta * delta * (count * f32(other) / total);
        count = total;
      }
    }
  }
  means[lane] = mean;
  squares[lane] = square;
  counts[lane] = count;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half = half / 2u) {
    if (lane < half) {
      let a = counts[lane];
      let b = counts[lane + half];
      let total = max(a + b, 1.0);
      let delta = means[lane + half] - means[lane];
      means[lane] += delta * (b / total);
      squares[lane] += squares[lane + half] + delta * delta * (a * b / total);
      counts[lane] = a + b;
    }
    workgroupBarrier();
  }
  if (lane == 0u && block < params.blocks) {
    let rstd = 1.0 / sqrt(squares[0] / f32(params.voxels) + params.eps);
    let c = block % params.channel_blocks;
    coef[block * 4u] = means[0];
    coef[block * 4u + 1u] = gamma[c] * rstd;
    coef[block * 4u + 2u] = beta[c];
    coef[block * 4u + 3u] = rstd;
  }
}
