// First pass of the instance norm gradient: the two sums over each channel, in parts.
//
//   dz = da * act'(z),  z = (r - mean) * scale + shift
//   partial[n,c,p] = (sum dz, sum dz * (r - mean)) over part p
//
// Without NORM (a bias gradient) only the first sum is meant; ACT then looks at the sign of r.
// Bindings (vec4 = 4 channel lanes): da, r [N, CB, V], coef [N*CB, 4], partial [N*CB, chunks, 2]
// A workgroup takes one chunk of one channel block; neighbouring lanes read neighbouring voxels. Lanes of a subgroup add their sums by subgroup operations, subgroups through workgroup memory.
// Source: the chain rule; the reductions of the batch norm backward pass.
// needs subgroups

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, da_base: u32, r_base: u32, first: u32, pad: u32 }

override NORM: bool = true;
override ACT: bool = false;
override WG: u32 = 64u;

const SLOPE: f32 = 0.01;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> da: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

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
  let c = (params.first + block) * 4u;
  var mean = vec4<f32>(0.0);
  var scale = vec4<f32>(1.0);
  var shift = vec4<f32>(0.0);
  if (NORM) { mean = coef[c]; scale = coef[c + 1u]; shift = coef[c + 2u]; }
  var s1 = vec4<f32>(0.0);
  var s2 = vec4<f32>(0.0);
  for (var v = begin + lane; v < end; v += WG) {
    var dz = da[params.da_base + block * params.voxels + v];
    if (NORM || ACT) {
      let centred = r[params.r_base + block * params.voxels + v] - mean;
      if (ACT) { dz = select(dz * SLOPE, dz, fma(centred, scale, shift) > vec4<f32>(0.0)); }
      s2 = fma(dz, centred, s2);
    }
    s1 += dz;
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
    let at = ((params.first + block) * params.chunks + chunk) * 2u;
    partial[at] = total1;
    partial[at + 1u] = total2;
  }
}
