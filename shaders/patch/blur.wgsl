// Smooths packed channels along one axis; beyond the edge lies the edge's voxel.
//
//   dst[i] = Σ_{|o| <= radius} taps[|o|] src[i + o]
//
// Bindings (vec4 = 4 channel lanes, each with weights of its own)
//   src   vec4<f32> [voxels]
//   taps  vec4<f32> [radius + 1]   weights for 0, 1, 2, … voxels away
//   dst   vec4<f32> [voxels]
// `length` is the axis' voxels, `stride` the voxels from one to the next along it. One thread: one voxel.
// Dispatch: ceil(voxels / WG) groups, folded into x and y.
// Source: separable Gaussian, cut off at three deviations.

struct Params { voxels: u32, length: u32, stride: u32, radius: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> taps: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dst: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  if (i < params.voxels) {
    let at = i / params.stride % params.length;
    let line = i - at * params.stride;
    var sum = taps[0] * src[i];
    for (var o = 1u; o <= params.radius; o++) {
      let before = select(0u, at - o, at >= o);
      let after = min(at + o, params.length - 1u);
      sum += taps[o] * (src[line + before * params.stride] + src[line + after * params.stride]);
    }
    dst[i] = sum;
  }
}
