// The exponential moving average of weights, over a contiguous range of the parameter block, behind their update.
//
//   average += share * (weight - average)
//
// where share = 1 - decay, and more for the first updates, comes from the host: for the t-th update if the step before counted, and
// `share_after_skip` if it was left out, which the host does not know yet. A step that is left out changes nothing.
// Bindings: weight, average: vec4 ranges of equal length `count`; state [8] words of loss_scale.wgsl.
// One thread a vec4.
// Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017.

struct Params { count: u32, share: f32, share_after_skip: f32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> average: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> state: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  if (t < params.count && state[3] == 0u) {
    let share = select(params.share, params.share_after_skip, state[7] != 0u);
    let before = average[t];
    average[t] = before + share * (weight[t] - before);
  }
}
