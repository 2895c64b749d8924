// Measures an adapter's copy bandwidth: out[i] = src[i].
//
// Bindings: src [count] vec4, out [count] vec4. A workgroup copies RUN consecutive vectors a lane, eight neighbouring
// lanes side by side, so that the pattern is the best that any kernel can hope for.
// Source: McCalpin, STREAM (the copy kernel).

struct Params { count: u32 }

override WG: u32 = 64u;

const RUN: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * ng.x;
  // unroll
  for (var j = 0u; j < RUN; j++) {
    let i = (group * RUN + j) * WG + lane;
    if (i < params.count) { out[i] = src[i]; }
  }
}
