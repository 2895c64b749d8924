// Adds a block of a window's logits to the weighted sums of the case; one lane behind the classes sums the weights themselves.
//
//   sums[v] = (0 at or beyond `fresh` along all axes, else sums[v]) + share * weights[p] * logits[p],  p = start + step * (v - first)
//
// Bindings
//   logits   vec4<f32> [D, H, W]       of the window, from the vector `start.w` on; read where LOGITS is 1, else they are 0
//   weights  f32 [D, H, W]             how much the window's voxels count
//   sums     vec4<f32> [slots, pitch]  plane z of the case lies in slot z % ring: H, W
//   flags    u32 [1]                   becomes 1 where a logit is infinite or no number, told by its bits
// Voxels at or beyond `fresh` are those that no window before covers, so that nothing has to be cleared. Where a binding holds
// some slots of the ring only, a dispatch for each such part adds to its planes. Windows are added one after another, so that
// sums do not depend on how many a batch has. One thread: `chunk` voxels along D of the case under the window.
// Dispatch: ceil(ceil(D / chunk) * H * W of the voxels under the window / WG) groups, folded into x and y.
// Source: weighted mean of overlapping windows as of nnU-Net, Isensee et al. 2021.

struct Params {
  // D, H, W of the voxels under the window; slots of the ring
  under: vec4<u32>,
  // the first of them in the case; vectors from slot to slot
  first: vec4<u32>,
  // the window's voxel above it; the first vector of `logits`
  start: vec4<i32>,
  // 1, or -1 where the window is mirrored; the lane that sums weights, 4 for none
  step: vec4<i32>,
  // voxels of the case that have no sum yet begin here
  fresh: vec4<u32>,
  // H, W of the window; W of the case
  size: vec4<u32>,
  // the first slot that is bound, and how many are
  slots: vec2<u32>,
  share: f32,
  chunk: u32,
}

override LOGITS: u32 = 1u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> flags: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let under = params.under.xyz;
  let plane = under.y * under.z;
  let column = t % plane;
  let begin = t / plane * params.chunk;
  let row = vec2<u32>(column / under.z, column % under.z);
  let yx = params.first.yz + row;
  let p = vec2<u32>(params.start.yz + params.step.yz * vec2<i32>(row));
  let source = p.x * params.size.y + p.y;
  let place = yx.x * params.size.z + yx.y;
  let fresh = all(yx >= params.fresh.yz);
  let exponent = vec4<u32>(0x7f800000u);
  var found = false;
  let is_weight = vec4<i32>(0, 1, 2, 3) == vec4<i32>(params.step.w);
  for (var d = begin; d < min(begin + params.chunk, under.x); d++) {
    let z = params.first.x + d;
    let slot = z % params.under.w - params.slots.x;
    if (slot < params.slots.y) {
      let window = u32(params.start.x + params.step.x * i32(d)) * params.size.x * params.size.y + source;
      let at = slot * params.first.w + place;
      var x = vec4<f32>(0.0);
      if (LOGITS == 1u) {
        x = logits[u32(params.start.w) + window];
        found = found || any((bitcast<vec4<u32>>(x) & exponent) == exponent);
      }
      x = select(x, vec4<f32>(1.0), is_weight);
      var sum = vec4<f32>(0.0);
      if (!(fresh && z >= params.fresh.x)) { sum = sums[at]; }
      sums[at] = sum + params.share * weights[window] * x;
    }
  }
  if (found) { atomicMax(&flags[0], 1u); }
}
