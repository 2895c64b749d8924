// A lane's share of the sums of some voxels less a shift, and of their squares.
//
//   first = sum (x - shift), second = sum (x - shift)^2, over every WG-th voxel of a run
//
// Asks of the importing file: the binding x of vec4 (4 channel lanes), WG.
// Four loads are under way at a time. Neighbouring lanes read neighbouring voxels.
// Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.

// import sums

const UNDER_WAY: u32 = 4u;

// Voxels from `begin` up to `end`; at least one.
fn shifted_sums(begin: u32, end: u32, shift: vec4<f32>, lane: u32) -> Sums {
  var own: Sums;
  for (var v = begin + lane; v < end; v += UNDER_WAY * WG) {
    var u: array<vec4<f32>, UNDER_WAY>;
    // unroll
    for (var j = 0u; j < UNDER_WAY; j++) { u[j] = x[min(v + j * WG, end - 1u)]; }
    // unroll
    for (var j = 0u; j < UNDER_WAY; j++) {
      let d = select(vec4<f32>(0.0), u[j] - shift, v + j * WG < end);
      own.first += d;
      own.second = fma(d, d, own.second);
    }
  }
  return own;
}
