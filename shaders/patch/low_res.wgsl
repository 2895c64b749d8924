// Simulates a coarser resolution: takes the nearest voxels of a coarser grid and interpolates between them.
//
//   coarse voxel j, along each axis, is src[floor((2 j + 1) n / (2 m))]
//   dst[i] = coarse at (i + 1/2) m / n - 1/2, linear or cubic; beyond the edge lies the edge's voxel
//
// Bindings (vec4 = 4 channel lanes): src, dst [D, H, W]. `size` is n, `low` is m (both D, H, W); `lanes` has 1 for the
// channels that change and 0 for those that are copied. One thread: one voxel. n * m < 2^30 on each axis.
// Dispatch: ceil(D * H * W / WG) groups, folded into x and y.
// Source: simulation of low resolution in nnU-Net, Isensee et al. 2021; cubic weights of Keys 1981, a = -1/2.

struct Params { size: vec4<i32>, low: vec4<i32>, lanes: vec4<u32> }

// 2 or 4
const TAPS: u32 = 2u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<f32>>;

// import interpolation

// The voxel of the patch that a coarse voxel is.
fn near(j: i32, axis: u32) -> i32 {
  let c = clamp(j, 0, params.low[axis] - 1);
  return (2 * c + 1) * params.size[axis] / (2 * params.low[axis]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  let size = params.size.xyz;
  if (i < u32(size.x * size.y * size.z)) {
    let v = i32(i);
    let voxel = vec3<i32>(v / (size.y * size.z), v / size.z % size.y, v % size.z);
    // position as a fraction over 2n, made positive by a whole voxel before it is split
    let at = (2 * voxel + 1) * params.low.xyz + size;
    let whole = at / (2 * size);
    let t = vec3<f32>(at - whole * 2 * size) / vec3<f32>(2 * size);
    let start = whole - 1 - i32(TAPS) / 4;
    let wz = weights(t.x);
    let wy = weights(t.y);
    let wx = weights(t.z);
    let x0 = near(start.z, 2u);
    let x1 = near(start.z + 1, 2u);
    let x2 = near(start.z + 2, 2u);
    let x3 = near(start.z + 3, 2u);
    var sum = vec4<f32>(0.0);
    // unroll
    for (var k = 0u; k < TAPS; k++) {
      let z = near(start.x + i32(k), 0u) * size.y;
      // unroll
      for (var j = 0u; j < TAPS; j++) {
        let y = (z + near(start.y + i32(j), 1u)) * size.z;
        var row = wx.x * src[y + x0] + wx.y * src[y + x1];
        if (TAPS == 4u) { row += wx.z * src[y + x2] + wx.w * src[y + x3]; }
        sum += wz[k] * wy[j] * row;
      }
    }
    dst[i] = select(src[i], sum, params.lanes == vec4<u32>(1u));
  }
}
