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

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, da_base: u32, r_base: u32, first: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> da: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

// import norm_share
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
  @builtin(subgroup_size) members: u32,
  // end SUBGROUPS
) {
  // section SUBGROUPS
  let place = Place(lane, team, teams, member, members);
  // otherwise
  let place = Place(lane);
  // end SUBGROUPS
  let t = wg.x + wg.y * ng.x;
  let chunk = t % params.chunks;
  // workgroups beyond the last block compute along and write nothing
  let block = min(t / params.chunks, params.blocks - 1u);
  let begin = chunk * params.chunk;
  let end = min(begin + params.chunk, params.voxels);
  let start = block * params.voxels;
  let own = norm_share(start + begin, start + end, norm_coef(params.first + block), lane);
  let sums = add_lanes(own, place);
  if (lane == 0u && t / params.chunks < params.blocks) {
    let at = ((params.first + block) * params.chunks + chunk) * 2u;
    partial[at] = sums.first;
    partial[at + 1u] = sums.second;
  }
}
