// What loads form the gradient before a norm from, of a channel block: mean, scale, shift, m1, k.
//
//   dr = scale * (dz - m1 - (r - mean) * k),  m1 = sum(dz)/V,  k = sum(dz (r-mean))/V / std^2
//
// Asks of the importing file: the bindings coef [N*CB, 4] and gcoef [N*CB, 5], params.voxels.
// Source: the chain rule of instance norm.

// import sums

// From the sums of dz and of dz * (r - mean) over the block.
fn store_gcoef(block: u32, sums: Sums) {
  let rstd = coef[block * 4u + 3u];
  let inverse = 1.0 / f32(params.voxels);
  gcoef[block * 5u] = coef[block * 4u];
  gcoef[block * 5u + 1u] = coef[block * 4u + 1u];
  gcoef[block * 5u + 2u] = coef[block * 4u + 2u];
  gcoef[block * 5u + 3u] = sums.first * inverse;
  gcoef[block * 5u + 4u] = sums.second * inverse * rstd * rstd;
}
