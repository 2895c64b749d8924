// Mean and summed squared deviation of all that a workgroup made, from those of its lanes.
//
// Asks of the importing file: what tree_sums.wgsl asks. Every lane calls; between two calls there is a barrier. The first lane has made something.
// Means are taken relative to the first lane's, so that sums keep their digits.
// Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

// import tree_sums

struct Moments { mean: vec4<f32>, square: vec4<f32> }

var<workgroup> reference: vec4<f32>;

// `own` is of `count` values, of all lanes `total`.
fn group_moments(own: Moments, count: f32, total: f32, place: Place) -> Moments {
  if (place.lane == 0u) { reference = own.mean; }
  workgroupBarrier();
  let ahead = own.mean - reference;
  let first = count * ahead;
  let sums = add_lanes(Sums(first, own.square + first * ahead), place);
  let mean = sums.first / max(total, 1.0);
  return Moments(reference + mean, max(sums.second - sums.first * mean, vec4<f32>(0.0)));
}
