// Where a voxel of an upsampled tensor lies in the tensor that is stored: `up` copies of each voxel along D, H and W.
//
// Asks of the importing file: params.h and params.w, the upsampled extents.
// Source: nearest-neighbour upsampling.

fn source_voxel(v: u32, up: vec3<u32>) -> u32 {
  if (up.x * up.y * up.z == 1u) { return v; }
  let w = v % params.w;
  let h = (v / params.w) % params.h;
  let d = v / (params.w * params.h);
  return ((d / up.x) * (params.h / up.y) + h / up.y) * (params.w / up.z) + w / up.z;
}
