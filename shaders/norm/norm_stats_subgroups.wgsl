// First pass of instance norm: mean and summed squared deviation of parts of each channel, one result a workgroup.
//
//   partial[n,c,p] = (mean, M2) of x[n,c, chunk p],  M2 = sum (x - mean)^2
//
// Bindings (vec4 = 4 channel lanes): x [N, CB, V], partial [N*CB, chunks, 2]
// A workgroup takes one chunk of one channel block; neighbouring lanes read neighbouring voxels. Sums are shifted by the
// chunk's first value, so that a large mean cancels nothing. Lanes of a subgroup add their sums by subgroup operations, subgroups through workgroup memory.
// Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.
// needs subgroups

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, base: u32, first: u32, pad0: u32, pad1: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> firsts: array<vec4<f32>, WG>;
var<workgroup> seconds: array<vec4<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) team: u32, @builtin(subgroup_invocation_id) member: u32, @builtin(num_subgroups) teams: u32) {
  let t = wg.x + wg.y * ng.x;
  let chunk = t % params.chunks;
  // workgroups beyond the last block compute along and write nothing
  let block = min(t / params.chunks, params.blocks - 1u);
  let begin = chunk * params.chunk;
  let end = min(begin + params.chunk, params.voxels);
  let start = params.base + block * params.voxels;
  let shift = x[start + begin];
  var s1 = vec4<f32>(0.0);
  var s2 = vec4<f32>(0.0);
  for (var v = begin + lane; v < end; v += WG) {
    let u = x[start + v] - shift;
    s1 += u;
    s2 = fma(u, u, s2);
  }
  s1 = subgroupAdd(s1);
  s2 = subgroupAdd(s2);
  if (member == 0u) {
    firsts[team] = s1;
    seconds[team] = s2;
  }
  workgroupBarrier();
  if (lane == 0u && t / params.chunks < params.blocks) {
    var total1 = vec4<f32>(0.0);
    var total2 = vec4<f32>(0.0);
    for (var other = 0u; other < teams; other++) { total1 += firsts[other]; total2 += seconds[other]; }
    let mean = total1 / f32(end - begin);
    let at = ((params.first + block) * params.chunks + chunk) * 2u;
    partial[at] = mean + shift;
    partial[at + 1u] = max(total2 - total1 * mean, vec4<f32>(0.0));
  }
}
