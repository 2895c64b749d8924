// First pass of instance norm: mean and summed squared deviation of parts of each channel, one result a workgroup.
//
//   partial[n,c,p] = (mean, M2) of x[n,c, chunk p],  M2 = sum (x - mean)^2
//
// Bindings (vec4 = 4 channel lanes): x [N, CB, V], partial [N*CB, chunks, 2]
// A workgroup takes one chunk of one channel block; neighbouring lanes read neighbouring voxels. Sums are shifted by the
// chunk's first value, so that a large mean cancels nothing.
// Lanes add their sums in a tree through workgroup memory, or with the section SUBGROUPS by subgroup operations.
// Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, base: u32, first: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

// import shifted_sums
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
  let start = params.base + block * params.voxels;
  let shift = x[start + begin];
  let sums = add_lanes(shifted_sums(start + begin, start + end, shift, lane), place);
  if (lane == 0u && t / params.chunks < params.blocks) {
    let mean = sums.first / f32(end - begin);
    let at = ((params.first + block) * params.chunks + chunk) * 2u;
    partial[at] = mean + shift;
    partial[at + 1u] = max(sums.second - sums.first * mean, vec4<f32>(0.0));
  }
}
