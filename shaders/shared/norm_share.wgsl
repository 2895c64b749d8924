// A lane's share of the two sums of the instance norm gradient.
//
//   first = sum dz, second = sum dz * (r - mean), over every WG-th voxel of a run
//
// Asks of the importing file: what norm_terms.wgsl asks, WG.
// Loads of four voxels are under way at a time. Neighbouring lanes read neighbouring voxels.
// Source: norm_terms.wgsl.

// import norm_terms

const UNDER_WAY: u32 = 4u;

// Voxels from `begin` up to `end`, counted through all channel blocks; at least one.
fn norm_share(begin: u32, end: u32, c: Coef, lane: u32) -> Sums {
  var own: Sums;
  for (var v = begin + lane; v < end; v += UNDER_WAY * WG) {
    var terms: array<Term, UNDER_WAY>;
    // unroll
    for (var j = 0u; j < UNDER_WAY; j++) { terms[j] = load_term(min(v + j * WG, end - 1u)); }
    // unroll
    for (var j = 0u; j < UNDER_WAY; j++) {
      if (v + j * WG < end) { own = add_loaded(own, terms[j], c); }
    }
  }
  return own;
}
