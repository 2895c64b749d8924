// Stochastic gradient descent with Nesterov momentum and L2 weight decay, over a range of the parameter block.
//
//   g = grad / loss scale + decay * w;  m = momentum * m + g;  w -= rate * (g + momentum * m)
//
// A step that is left out changes nothing.
// Bindings: grad, weight, m: vec4 ranges of equal length `count`; state [8] words of loss_scale.wgsl.
// One thread a vec4.
// Source: Nesterov 1983, in the form of torch.optim.SGD(nesterov=True).

struct Params { count: u32, rate: f32, momentum: f32, decay: f32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> state: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  if (t < params.count && state[3] == 0u) {
    let w = weight[t];
    let g = grad[t] * bitcast<f32>(state[4]) + params.decay * w;
    let m1 = params.momentum * m[t] + g;
    m[t] = m1;
    weight[t] = w - params.rate * (g + params.momentum * m1);
  }
}
