// Takes a patch out of a case: crop, rotation, scale, mirror, resize and elastic deformation at once.
//
//   position p[a] = centre[a] + Σ_b along_b[a] (2 i_b - (n_b - 1)) + u(i)[a]      in 2^-16 voxels of the case, integers
//   out[i] = image at p (nearest, linear or cubic; beyond the edge lies the edge's voxel), labels_out[i] = label of the
//   nearest voxel (of two equally near ones the later); `outside` and 0 where the nearest voxel is not in the case
//   u(i) = Σ_k β(g - k) control[k], g = i * step + origin, uniform cubic B-splines β, along each axis
//
// Bindings (the box is the part of the case that is in memory; CHANNELS of 1 to 4 images are read)
//   image0 to image3  f32 [box]            channels of one block
//   label             u32 [box / 4]        a byte a voxel
//   control           vec4<f32> [grid]     displacements along D, H, W in voxels of the case
//   out               vec4<f32> [D, H, W]  packed channels; padding lanes are 0
//   labels_out        u32 [D, H, W]
// One thread: a voxel of H and W and `chunk` voxels along D, in which the splines of H and W are summed once a cell.
// Cubic weights: Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -1/2.
// Dispatch: ceil(H * W * ceil(D / chunk) / WG) groups, folded into x and y.

struct Params {
  // D, H, W of the patch; voxels of a thread
  size: vec4<u32>,
  // D, H, W of the case
  limit: vec4<i32>,
  // D, H, W of the box's first voxel; voxels from row to row
  first: vec4<i32>,
  // position of the patch's centre; voxels from slice to slice of the box
  centre: vec4<i32>,
  along_d: vec4<i32>,
  along_h: vec4<i32>,
  along_w: vec4<i32>,
  // D, H, W of the control grid
  grid: vec4<u32>,
  step: vec4<f32>,
  // control grid's place of the first voxel; the value beyond the case
  origin: vec4<f32>,
}

const TAPS: u32 = 2u;
const CHANNELS: u32 = 1u;
override ELASTIC: u32 = 0u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image0: array<f32>;
@group(0) @binding(2) var<storage, read> image1: array<f32>;
@group(0) @binding(3) var<storage, read> image2: array<f32>;
@group(0) @binding(4) var<storage, read> image3: array<f32>;
@group(0) @binding(5) var<storage, read> label: array<u32>;
@group(0) @binding(6) var<storage, read> control: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> labels_out: array<u32>;

// import interpolation

fn fetch(i: u32) -> vec4<f32> {
  var v = vec4<f32>(image0[i], 0.0, 0.0, 0.0);
  if (CHANNELS > 1u) { v.y = image1[i]; }
  if (CHANNELS > 2u) { v.z = image2[i]; }
  if (CHANNELS > 3u) { v.w = image3[i]; }
  return v;
}

fn spline(t: f32) -> vec4<f32> {
  let s = 1.0 - t;
  return vec4<f32>(s * s * s, (3.0 * t - 6.0) * t * t + 4.0, (3.0 * s - 6.0) * s * s + 4.0, t * t * t) / 6.0;
}

// Displacements of a slice of the control grid, summed over H and W.
fn across(slice: u32, corner: vec2<u32>, wy: vec4<f32>, wx: vec4<f32>) -> vec3<f32> {
  var sum = vec3<f32>(0.0);
  // unroll
  for (var j = 0u; j < 4u; j++) {
    let at = (slice * params.grid.y + corner.x + j) * params.grid.z + corner.y;
    sum += wy[j] * (wx.x * control[at].xyz + wx.y * control[at + 1u].xyz + wx.z * control[at + 2u].xyz + wx.w * control[at + 3u].xyz);
  }
  return sum;
}

fn between(p: vec3<i32>) -> vec4<f32> {
  let start = (p >> vec3<u32>(16u)) - vec3<i32>(i32(TAPS) / 4);
  let t = vec3<f32>(p & vec3<i32>(0xffff)) / 65536.0;
  let wz = weights(t.x);
  let wy = weights(t.y);
  let wx = weights(t.z);
  let last = params.limit.xyz - 1;
  var sum = vec4<f32>(0.0);
  // unroll
  for (var k = 0u; k < TAPS; k++) {
    let z = (clamp(start.x + i32(k), 0, last.x) - params.first.x) * params.centre.w;
    var plane = vec4<f32>(0.0);
    // unroll
    for (var j = 0u; j < TAPS; j++) {
      let y = (clamp(start.y + i32(j), 0, last.y) - params.first.y) * params.first.w + z - params.first.z;
      var row = vec4<f32>(0.0);
      // unroll
      for (var i = 0u; i < TAPS; i++) {
        row += wx[i] * fetch(u32(y + clamp(start.z + i32(i), 0, last.z)));
      }
      plane += wy[j] * row;
    }
    sum += wz[k] * plane;
  }
  return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let size = params.size.xyz;
  let columns = size.y * size.z;
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let begin = t / columns * params.size.w;
  let column = t % columns;
  let y = column / size.z;
  let x = column % size.z;
  let end = min(begin + params.size.w, size.x);
  let steps = vec2<i32>(2 * vec2<u32>(y, x)) - vec2<i32>(size.yz) + 1;
  let base = params.centre.xyz + params.along_h.xyz * steps.x + params.along_w.xyz * steps.y;
  let beyond = select(vec4<f32>(0.0), vec4<f32>(params.origin.w), vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(CHANNELS));
  let place = vec2<f32>(vec2<u32>(y, x)) * params.step.yz + params.origin.yz;
  let corner = vec2<u32>(floor(place));
  let wy = spline(fract(place.x));
  let wx = spline(fract(place.y));
  // sums of four slices of the control grid, the first of them `cell`
  var cell = 0u;
  var s0 = vec3<f32>(0.0);
  var s1 = vec3<f32>(0.0);
  var s2 = vec3<f32>(0.0);
  var s3 = vec3<f32>(0.0);
  for (var z = begin; z < end; z++) {
    var p = base + params.along_d.xyz * (2 * i32(z) - i32(size.x) + 1);
    if (ELASTIC == 1u) {
      let g = f32(z) * params.step.x + params.origin.x;
      let now = u32(floor(g));
      if (z == begin) {
        cell = now;
        s0 = across(cell, corner, wy, wx);
        s1 = across(cell + 1u, corner, wy, wx);
        s2 = across(cell + 2u, corner, wy, wx);
        s3 = across(cell + 3u, corner, wy, wx);
      }
      while (cell < now) {
        cell++;
        s0 = s1;
        s1 = s2;
        s2 = s3;
        s3 = across(cell + 3u, corner, wy, wx);
      }
      let wz = spline(fract(g));
      p += vec3<i32>(floor((wz.x * s0 + wz.y * s1 + wz.z * s2 + wz.w * s3) * 65536.0 + 0.5));
    }
    let near = (p + 32768) >> vec3<u32>(16u);
    var value = beyond;
    var class_id = 0u;
    if (all(near >= vec3<i32>(0)) && all(near < params.limit.xyz)) {
      value = between(p);
      let at = near - params.first.xyz;
      let i = u32(at.x * params.centre.w + at.y * params.first.w + at.z);
      class_id = (label[i >> 2u] >> ((i & 3u) * 8u)) & 255u;
    }
    let o = z * columns + column;
    out[o] = value;
    labels_out[o] = class_id;
  }
}
