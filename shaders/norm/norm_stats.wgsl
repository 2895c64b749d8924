// First pass of instance norm: mean and summed squared deviation of parts of each channel.
//
//   partial[n,c,p] = (mean, M2) of x[n,c, chunk of part p],  M2 = sum (x - mean)^2
//
// Bindings (vec4 = 4 channel lanes): x [N, CB, V], partial [N*CB, chunks*WG, 2]
// A workgroup takes one chunk of one channel block. Eight neighbouring lanes share a run of it, so that they read whole
// cache lines one after another. Sums are shifted by the lane's first value, so that a large mean cancels nothing.
// Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, base: u32, first: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = wg.x + wg.y * ng.x;
  let chunk = t % params.chunks;
  let block = t / params.chunks;
  if (block < params.blocks) {
    let begin = chunk * params.chunk;
    let run = params.chunk / (WG / 8u);
    let first = begin + lane / 8u * run + lane % 8u;
    let end = min(begin + (lane / 8u + 1u) * run, params.voxels);
    let start = params.base + block * params.voxels;
    let shift = x[start + min(first, params.voxels - 1u)];
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var count = 0.0;
    for (var v = first; v < end; v += 8u) {
      let u = x[start + v] - shift;
      s1 += u;
      s2 = fma(u, u, s2);
      count += 1.0;
    }
    let mean = s1 / max(count, 1.0);
    let at = (((params.first + block) * params.chunks + chunk) * WG + lane) * 2u;
    partial[at] = mean + shift;
    partial[at + 1u] = max(s2 - s1 * mean, vec4<f32>(0.0));
  }
}
