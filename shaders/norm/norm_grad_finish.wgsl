// Second pass of the instance norm gradient: totals, parameter gradients, and what a consumer needs to form dr on load.
//
//   dr = scale * (dz - m1 - (r - mean) * k),  m1 = sum(dz)/V,  k = sum(dz (r-mean))/V / std^2
//   dgamma[c] = sum_n sum(dz (r-mean)) / std,  dbeta[c] = sum_n sum(dz)
//
// Without NORM only dbeta is written: the gradient of a convolution's bias.
// Bindings (vec4 = 4 channel lanes): partial [N*CB, parts, 2] of norm_grad.wgsl or norm_grad_whole.wgsl, coef [N*CB, 4],
// gcoef [N*CB, 5] mean, scale, shift, m1, k; dgamma [CB], dbeta [CB]
// One workgroup a channel block, ROWS samples at a time, each by LANES lanes: they sum strided parts, then a tree.
// Source: the chain rule of instance norm.

struct Params { samples: u32, channel_blocks: u32, voxels: u32, parts: u32 }

override NORM: bool = true;

// samples side by side, and lanes of each
const ROWS: u32 = 1u;
const LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gcoef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dgamma: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dbeta: array<vec4<f32>>;

// import sums

var<workgroup> firsts: array<vec4<f32>, ROWS * LANES>;
var<workgroup> seconds: array<vec4<f32>, ROWS * LANES>;

// The sums of each row's lanes, in the row's first lane.
fn add_row(sums: Sums, lane: u32) -> Sums {
  firsts[lane] = sums.first;
  seconds[lane] = sums.second;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half = half / 2u) {
    if (lane % LANES < half) {
      firsts[lane] += firsts[lane + half];
      seconds[lane] += seconds[lane + half];
    }
    workgroupBarrier();
  }
  return Sums(firsts[lane], seconds[lane]);
}

@compute @workgroup_size(ROWS * LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = wg.x + wg.y * ng.x;
  let row = lane / LANES;
  var gamma_sum = vec4<f32>(0.0);
  var beta_sum = vec4<f32>(0.0);
  for (var n0 = 0u; n0 < params.samples; n0 += ROWS) {
    let n = min(n0 + row, params.samples - 1u);
    let block = n * params.channel_blocks + min(c, params.channel_blocks - 1u);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    for (var p = lane % LANES; p < params.parts; p += LANES) {
      s1 += partial[(block * params.parts + p) * 2u];
      s2 += partial[(block * params.parts + p) * 2u + 1u];
    }
    let sums = add_row(Sums(s1, s2), lane);
    if (lane % LANES == 0u && c < params.channel_blocks && n0 + row < params.samples) {
      beta_sum += sums.first;
      if (NORM) {
        let rstd = coef[block * 4u + 3u];
        let inverse = 1.0 / f32(params.voxels);
        gamma_sum += sums.second * rstd;
        gcoef[block * 5u] = coef[block * 4u];
        gcoef[block * 5u + 1u] = coef[block * 4u + 1u];
        gcoef[block * 5u + 2u] = coef[block * 4u + 2u];
        gcoef[block * 5u + 3u] = sums.first * inverse;
        gcoef[block * 5u + 4u] = sums.second * inverse * rstd * rstd;
      }
    }
    workgroupBarrier();
  }
  if (ROWS > 1u) {
    firsts[lane] = beta_sum;
    seconds[lane] = gamma_sum;
    workgroupBarrier();
    if (lane == 0u) {
      for (var other = 1u; other < ROWS; other++) {
        beta_sum += firsts[other * LANES];
        gamma_sum += seconds[other * LANES];
      }
    }
  }
  if (lane == 0u && c < params.channel_blocks) {
    if (NORM) { dgamma[c] = gamma_sum; }
    dbeta[c] = beta_sum;
  }
}
