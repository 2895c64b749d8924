// Instance norm and activation applied while a tensor is read, and the gradient before both formed from the one after.
//
//   activated: act(z), z = (x - mean) * scale + shift
//   derived:   scale * (dz - m1 - (r - mean) * k), dz = da * act'(z), z = (r - mean) * scale + shift; r is the raw tensor
//
// All of four channel lanes. Without `norm` z = x (or r) and the result is dz. `act` is 0 (act(z) = z) or an activation, numbered as
// Rust has them: 1 LeakyReLU, max(z, SLOPE z).
// Asks nothing of the importing file.
// Source: instance norm of Ulyanov et al. 2016; the chain rule.

const LEAKY_RELU: u32 = 1u;
const SLOPE: f32 = 0.01;

// m1 and k serve gradients alone.
struct Coef { mean: vec4<f32>, scale: vec4<f32>, shift: vec4<f32>, m1: vec4<f32>, k: vec4<f32> }

fn activated(value: vec4<f32>, c: Coef, norm: bool, act: u32) -> vec4<f32> {
  var z = value;
  if (norm) { z = (z - c.mean) * c.scale + c.shift; }
  if (act == LEAKY_RELU) { z = max(z, z * SLOPE); }
  return z;
}

// The gradient before the activation of z from the one after.
fn unactivated(after: vec4<f32>, z: vec4<f32>, act: u32) -> vec4<f32> {
  if (act == LEAKY_RELU) { return select(after * SLOPE, after, z > vec4<f32>(0.0)); }
  return after;
}

fn derived(after: vec4<f32>, value: vec4<f32>, c: Coef, norm: bool, act: u32) -> vec4<f32> {
  if (norm) {
    let centred = value - c.mean;
    let dz = unactivated(after, centred * c.scale + c.shift, act);
    return c.scale * (dz - c.m1 - centred * c.k);
  }
  return unactivated(after, value, act);
}
