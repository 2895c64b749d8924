// Instance norm and LeakyReLU applied while a tensor is read, and the gradient before both formed from the one after.
//
//   activated: act(z), z = (x - mean) * scale + shift, act(z) = max(z, SLOPE z)
//   derived:   scale * (dz - m1 - (r - mean) * k), dz = da * act'(z), z = (r - mean) * scale + shift; r is the raw tensor
//
// All of four channel lanes. Without `norm` z = x (or r) and the result is dz, without `act` act(z) = z.
// Asks nothing of the importing file.
// Source: instance norm of Ulyanov et al. 2016; the chain rule.

const SLOPE: f32 = 0.01;

// m1 and k serve gradients alone.
struct Coef { mean: vec4<f32>, scale: vec4<f32>, shift: vec4<f32>, m1: vec4<f32>, k: vec4<f32> }

fn activated(value: vec4<f32>, c: Coef, norm: bool, act: bool) -> vec4<f32> {
  var z = value;
  if (norm) { z = (z - c.mean) * c.scale + c.shift; }
  if (act) { z = max(z, z * SLOPE); }
  return z;
}

// The gradient before the activation of z from the one after.
fn unactivated(after: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
  return select(after * SLOPE, after, z > vec4<f32>(0.0));
}

fn derived(after: vec4<f32>, value: vec4<f32>, c: Coef, norm: bool, act: bool) -> vec4<f32> {
  var dz = after;
  if (norm) {
    let centred = value - c.mean;
    if (act) { dz = unactivated(dz, centred * c.scale + c.shift); }
    return c.scale * (dz - c.m1 - centred * c.k);
  }
  if (act) { dz = unactivated(dz, value); }
  return dz;
}
