// Entropy of the probabilities of each voxel; of regions the sum of the entropies of each one and its complement.
//
//   out[v] = min(1, (first ? 0 : out[v]) + scale * Σ_k h(p[k, v])),  h(p) = -p ln p, of regions -p ln p - (1 - p) ln(1 - p)
//
// Bindings
//   maps  vec4<f32> [bound classes, vectors]  probabilities, four voxels a vector
//   out   vec4<f32> [vectors]
// Where classes come in several groups each adds its own; `first` is 1 for the first. `scale` makes the largest entropy 1.
// One thread: one vector.
// Dispatch: ceil(vectors / WG) groups, folded into x and y.
// Source: Shannon entropy, by the definition; 0 ln 0 is 0.

struct Params { vectors: u32, classes: u32, first: u32, scale: f32 }

override REGIONS: u32 = 0u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> maps: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

// of what has no logarithm
const LEAST: f32 = 1.2e-38;

fn term(p: vec4<f32>) -> vec4<f32> {
  return -p * log(clamp(p, vec4<f32>(LEAST), vec4<f32>(1.0)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  if (i < params.vectors) {
    var sum = vec4<f32>(0.0);
    for (var k = 0u; k < params.classes; k++) {
      let p = maps[k * params.vectors + i];
      sum += term(p);
      if (REGIONS == 1u) { sum += term(max(1.0 - p, vec4<f32>(0.0))); }
    }
    var before = vec4<f32>(0.0);
    if (params.first == 0u) { before = out[i]; }
    out[i] = min(before + params.scale * sum, vec4<f32>(1.0));
  }
}
