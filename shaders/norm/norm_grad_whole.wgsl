// First pass of the instance norm gradient: the two sums over each channel, in parts.
//
//   dz = da * act'(z),  z = (r - mean) * scale + shift
//   partial[n,c,p] = (sum dz, sum dz * (r - mean)) over part p
//
// Without NORM (a bias gradient) only the first sum is meant; ACT then looks at the sign of r.
// Bindings (vec4 = 4 channel lanes): da, r [N, CB, V], coef [N*CB, 4], partial [N*CB, chunks, 2]
// A workgroup takes one chunk of one channel block; neighbouring lanes read neighbouring voxels.
// Lanes add their sums in a tree through workgroup memory, or with the section SUBGROUPS by subgroup operations.
// Source: the chain rule; the reductions of the batch norm backward pass.

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

// import tree_sums

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(num_workgroups) ng: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  // section SUBGROUPS
  @builtin(subgroup_id) team: u32,
  @builtin(num_subgroups) teams: u32,
  @builtin(subgroup_invocation_id) member: u32,
  // end SUBGROUPS
) {
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
  // section SUBGROUPS
  let sums = add_lanes(Sums(s1, s2), Place(lane, team, teams, member));
  // otherwise
  let sums = add_lanes(Sums(s1, s2), lane);
  // end SUBGROUPS
  if (lane == 0u && t / params.chunks < params.blocks) {
    let at = ((params.first + block) * params.chunks + chunk) * 2u;
    partial[at] = sums.first;
    partial[at + 1u] = sums.second;
  }
}
