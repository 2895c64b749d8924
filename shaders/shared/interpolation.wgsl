// Weights of TAPS neighbours at the fraction `t` between the two in the middle. 1: the nearest voxel; 2: linear; 4: cubic.
//
// Asks of the importing file: TAPS.
// Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -1/2.

fn weights(t: f32) -> vec4<f32> {
  if (TAPS == 4u) {
    return vec4<f32>(
      ((-0.5 * t + 1.0) * t - 0.5) * t,
      (1.5 * t - 2.5) * t * t + 1.0,
      ((-1.5 * t + 2.0) * t + 0.5) * t,
      (0.5 * t - 0.5) * t * t,
    );
  }
  if (TAPS == 2u) { return vec4<f32>(1.0 - t, t, 0.0, 0.0); }
  return vec4<f32>(1.0, 0.0, 0.0, 0.0);
}
