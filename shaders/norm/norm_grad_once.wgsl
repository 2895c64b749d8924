// Gradient of an instance norm's parameters in one pass, and what a consumer needs to form dr on load, for tensors of few voxels:
// what norm_grad_whole.wgsl and norm_grad_finish.wgsl make of larger ones.
//
//   dz = da * act'(z),  z = (r - mean) * scale + shift
//   dr = scale * (dz - m1 - (r - mean) * k),  m1 = sum(dz)/V,  k = sum(dz (r-mean))/V / std^2
//   dgamma[c] = sum_n sum(dz (r-mean)) / std,  dbeta[c] = sum_n sum(dz)
//
// Without NORM only dbeta is written: the gradient of a convolution's bias; ACT then looks at the sign of r.
// Bindings (vec4 = 4 channel lanes): da, r [N, CB, V], coef [N*CB, 4], gcoef [N*CB, 5] mean, scale, shift, m1, k; dgamma [CB],
// dbeta [CB]. One workgroup a channel block, samples one after another.
// Lanes add their sums in a tree through workgroup memory, or with the section SUBGROUPS by subgroup operations.
// Source: the chain rule; the reductions of the batch norm backward pass.

struct Params { samples: u32, channel_blocks: u32, voxels: u32, da_base: u32, r_base: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> da: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gcoef: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dgamma: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> dbeta: array<vec4<f32>>;

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
  // workgroups beyond the last block compute along and write nothing
  let channels = min(t, params.channel_blocks - 1u);
  let writes = lane == 0u && t < params.channel_blocks;
  var gamma_sum = vec4<f32>(0.0);
  var beta_sum = vec4<f32>(0.0);
  for (var n = 0u; n < params.samples; n++) {
    let block = n * params.channel_blocks + channels;
    let start = block * params.voxels;
    let own = norm_share(start, start + params.voxels, norm_coef(block), lane);
    let sums = add_lanes(own, place);
    beta_sum += sums.first;
    if (NORM) {
      let rstd = coef[block * 4u + 3u];
      gamma_sum += sums.second * rstd;
      if (writes) {
        let inverse = 1.0 / f32(params.voxels);
        gcoef[block * 5u] = coef[block * 4u];
        gcoef[block * 5u + 1u] = coef[block * 4u + 1u];
        gcoef[block * 5u + 2u] = coef[block * 4u + 2u];
        gcoef[block * 5u + 3u] = sums.first * inverse;
        gcoef[block * 5u + 4u] = sums.second * inverse * rstd * rstd;
      }
    }
    workgroupBarrier();
  }
  if (writes) {
    if (NORM) { dgamma[channels] = gamma_sum; }
    dbeta[channels] = beta_sum;
  }
}
