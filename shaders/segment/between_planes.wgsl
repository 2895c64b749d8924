// Mean logits on a plane between two finished planes of sums.
//
//   out[v] = (1 - t) low[v] / low_weights[v][lane] + t high[v] / high_weights[v][lane]
//
// Bindings (vec4 = 4 class lanes of a block)
//   low, high                  vec4<f32> [H, W]   weighted sums of both planes
//   low_weights, high_weights  vec4<f32> [H, W]   the block whose lane `lane` has the sums of weights
//   out                        vec4<f32> [H, W]   from the vector `base` on
// One thread: one voxel.
// Dispatch: ceil(H * W / WG) groups, folded into x and y.
// Source: linear interpolation between voxel centres; t = 0 takes the one plane.

struct Params { voxels: u32, lane: u32, t: f32, base: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> low: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> high: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> low_weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> high_weights: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

// of sums that no window gave anything
const LEAST: f32 = 1.2e-38;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  if (i < params.voxels) {
    var mean = low[i] / max(low_weights[i][params.lane], LEAST);
    if (params.t > 0.0) {
      mean = (1.0 - params.t) * mean + params.t * (high[i] / max(high_weights[i][params.lane], LEAST));
    }
    out[params.base + i] = mean;
  }
}
