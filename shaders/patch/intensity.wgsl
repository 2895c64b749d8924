// Changes intensities in place: brightness, contrast, gamma, shift, noise, in this order.
//
//   v <- brightness v;  low, high, mean: of v over the patch
//   v <- clamp((v - mean) contrast + mean, low, high)
//   v <- ((v - low) / (high - low))^gamma (high - low) + low, where high - low > 1e-6
//   v <- v + shift + noise * normal(voxel, channel, seed)
//
// Bindings (vec4 = 4 channel lanes, each with settings of its own)
//   moments  vec4<f32> [3]        min, max, sum of the patch before (lane_moments.wgsl), read where MOMENTS = 1
//   values   vec4<f32> [voxels]
// Lanes whose contrast or gamma is 1 skip it; padding lanes have brightness 1 and noise and shift 0 and stay 0.
// One thread: one voxel. Dispatch: ceil(voxels / WG) groups, folded into x and y.
// Sources: hash PCG3D of Jarzynski and Olano, "Hash functions for GPU rendering", 2020; Box and Muller 1958.

struct Params {
  brightness: vec4<f32>,
  contrast: vec4<f32>,
  gamma: vec4<f32>,
  shift: vec4<f32>,
  noise: vec4<f32>,
  voxels: u32,
  // first channel of the block
  channel: u32,
  seed: u32,
}

override MOMENTS: u32 = 0u;
override NOISE: u32 = 0u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> values: array<vec4<f32>>;

fn pcg3d(word: vec3<u32>) -> vec3<u32> {
  var v = word * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> vec3<u32>(16u);
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  return v;
}

// Normal numbers of two neighbouring channels.
fn normals(voxel: u32, pair: u32) -> vec2<f32> {
  let h = pcg3d(vec3<u32>(voxel, pair, params.seed));
  let radius = sqrt(-2.0 * log(f32((h.x >> 8u) + 1u) / 16777216.0));
  // a half turn less, so that the angle is within ±π, where cosine and sine are accurate
  let angle = 6.283185307 * (f32(h.y >> 8u) / 16777216.0 - 0.5);
  return -radius * vec2<f32>(cos(angle), sin(angle));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  if (i < params.voxels) {
    let b = params.brightness;
    var v = values[i] * b;
    if (MOMENTS == 1u) {
      let low = moments[0] * b;
      let high = moments[1] * b;
      let mean = moments[2] * b / f32(params.voxels);
      let spread = clamp((v - mean) * params.contrast + mean, low, high);
      v = select(v, spread, params.contrast != vec4<f32>(1.0));
      let range = high - low;
      let share = max((v - low) / max(range, vec4<f32>(1e-6)), vec4<f32>(0.0));
      let bent = pow(share, params.gamma) * range + low;
      v = select(v, bent, (params.gamma != vec4<f32>(1.0)) & (range > vec4<f32>(1e-6)));
    }
    v += params.shift;
    if (NOISE == 1u) {
      let pair = params.channel / 2u;
      v += params.noise * vec4<f32>(normals(i, pair), normals(i, pair + 1u));
    }
    values[i] = v;
  }
}
