// Cuts a block of channels of one window out of the planes of a case, mirrored along the axes whose step is -1.
//
//   out[p] = image[start + step * p] for each voxel p of the window; `outside` beyond the case; padding lanes are 0
//
// Bindings
//   image  f32 [slots, pitch]     plane z of the case lies in slot z % ring: its channels, H, W
//   out    vec4<f32> [D, H, W]    packed channels of the window, from the vector `size.w` on
// Where a binding holds some slots of the ring only, a dispatch for each such part makes the voxels of its planes; beyond the
// case the nearest plane's. One thread: `chunk` voxels along D.
// Dispatch: ceil(ceil(D / chunk) * H * W / WG) groups, folded into x and y.
// Source: sliding windows as of nnU-Net, Isensee et al. 2021.

struct Params {
  // D, H, W of the window; the first vector of `out`
  size: vec4<u32>,
  // D, H, W of the case; slots of the ring
  limit: vec4<i32>,
  // the voxel of the case below the window's first one; the block's first channel
  start: vec4<i32>,
  // 1, or -1 where the window is mirrored
  step: vec4<i32>,
  // the first slot that is bound, how many are, and words from one to the next
  slots: vec4<u32>,
  outside: f32,
  chunk: u32,
}

// Channels of the block. On a CPU a load is paid for also where a branch leaves it out.
override CHANNELS: u32 = 4u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let size = params.size.xyz;
  let plane = size.y * size.z;
  let column = t % plane;
  let begin = t / plane * params.chunk;
  let row = vec2<i32>(vec2<u32>(column / size.z, column % size.z));
  let yx = params.start.yz + params.step.yz * row;
  let voxels = u32(params.limit.y * params.limit.z);
  let within = all(yx >= vec2<i32>(0)) && all(yx < params.limit.yz);
  let place = u32(params.start.w) * voxels + u32(yx.x * params.limit.z + yx.y);
  let beyond = select(vec4<f32>(0.0), vec4<f32>(params.outside), vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(CHANNELS));
  for (var d = begin; d < min(begin + params.chunk, size.x); d++) {
    let v = params.start.x + params.step.x * i32(d);
    let slot = u32(clamp(v, 0, params.limit.x - 1) % params.limit.w) - params.slots.x;
    if (slot < params.slots.y) {
      let at = slot * params.slots.z + place;
      var value = beyond;
      if (within && v >= 0 && v < params.limit.x) {
        value.x = image[at];
        if (CHANNELS > 1u) { value.y = image[at + voxels]; }
        if (CHANNELS > 2u) { value.z = image[at + 2u * voxels]; }
        if (CHANNELS > 3u) { value.w = image[at + 3u * voxels]; }
      }
      out[params.size.w + d * plane + column] = value;
    }
  }
}
