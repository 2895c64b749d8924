// Statistics of an instance norm in one pass, for tensors of few voxels: what norm_stats_whole.wgsl and norm_finish.wgsl make of
// larger ones.
//
//   mean, var = biased moments of x[n,c];  coef = (mean, gamma/sqrt(var+eps), beta, 1/sqrt(var+eps))
//
// Bindings (vec4 = 4 channel lanes): x [N, CB, V], gamma [CB], beta [CB], coef [N*CB, 4]
// One workgroup a (sample, channel block). Sums are shifted by its first value, so that a large mean cancels nothing.
// Lanes add their sums in a tree through workgroup memory, or with the section SUBGROUPS by subgroup operations.
// Source: Chan, Golub, LeVeque 1983; instance norm of Ulyanov et al. 2016 with biased variance.

struct Params { blocks: u32, channel_blocks: u32, voxels: u32, base: u32, first: u32, eps: f32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> coef: array<vec4<f32>>;

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
  // workgroups beyond the last block compute along and write nothing
  let block = min(t, params.blocks - 1u);
  let start = params.base + block * params.voxels;
  let shift = x[start];
  let sums = add_lanes(shifted_sums(start, start + params.voxels, shift, lane), place);
  if (lane == 0u && t < params.blocks) {
    let count = f32(params.voxels);
    let mean = sums.first / count;
    let square = max(sums.second - sums.first * mean, vec4<f32>(0.0));
    let rstd = 1.0 / sqrt(square / count + params.eps);
    let at = params.first + block;
    let c = at % params.channel_blocks;
    coef[at * 4u] = mean + shift;
    coef[at * 4u + 1u] = gamma[c] * rstd;
    coef[at * 4u + 2u] = beta[c];
    coef[at * 4u + 3u] = rstd;
  }
}
