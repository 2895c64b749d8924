// Adam with L2 weight decay added to the gradient, over a contiguous range of the parameter block.
//
//   g = grad / loss scale + decay * w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= rate * m / (sqrt(v) * inv_sqrt_c2 + eps)
//
// where rate = lr / (1 - b1^t) and inv_sqrt_c2 = 1 / sqrt(1 - b2^t) come from the host, for the t-th update if the step before counted,
// and `*_after_skip` if it was left out, which the host does not know yet. A step that is left out changes nothing.
// Bindings: grad, weight, m, v: vec4 ranges of equal length `count`; state [8] words of loss_scale.wgsl.
// One thread a vec4.
// Source: Kingma and Ba 2015, in the form of torch.optim.Adam.

struct Params {
  count: u32, rate: f32, rate_after_skip: f32, inv_sqrt_c2: f32, inv_sqrt_c2_after_skip: f32,
  decay: f32, beta1: f32, beta2: f32, eps: f32
}

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> v: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> state: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  if (t < params.count && state[3] == 0u) {
    let after_skip = state[7] != 0u;
    let rate = select(params.rate, params.rate_after_skip, after_skip);
    let inv_sqrt_c2 = select(params.inv_sqrt_c2, params.inv_sqrt_c2_after_skip, after_skip);
    let w = weight[t];
    let g = grad[t] * bitcast<f32>(state[4]) + params.decay * w;
    let m1 = params.beta1 * m[t] + (1.0 - params.beta1) * g;
    let v1 = params.beta2 * v[t] + (1.0 - params.beta2) * g * g;
    m[t] = m1;
    v[t] = v1;
    weight[t] = w - rate * m1 / (sqrt(v1) * inv_sqrt_c2 + params.eps);
  }
}
