// Mean and spread of predictions that come one after another: after the last one `squares` holds their standard deviation.
//
//   mean' = mean + (x - mean) / (n + 1),  squares' = squares + (x - mean) (x - mean');  last: squares' = sqrt(squares' / (n + 1))
//
// Bindings
//   maps     vec4<f32> [vectors]  the next prediction, x
//   mean     vec4<f32> [vectors]  of the n before
//   squares  vec4<f32> [vectors]  their summed squared deviations
// `count` is n, the predictions before, of which 0 starts anew. One thread: one vector.
// Dispatch: ceil(vectors / WG) groups, folded into x and y.
// Source: Welford, "Note on a method for calculating corrected sums of squares and products", 1962.

struct Params { vectors: u32, count: u32, last: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> maps: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> squares: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * ng.x) * WG + lane;
  if (i < params.vectors) {
    let x = maps[i];
    var centre = x;
    var sum = vec4<f32>(0.0);
    if (params.count > 0u) {
      let away = x - mean[i];
      centre = mean[i] + away / f32(params.count + 1u);
      sum = squares[i] + away * (x - centre);
    }
    mean[i] = centre;
    if (params.last == 1u) { sum = sqrt(max(sum, vec4<f32>(0.0)) / f32(params.count + 1u)); }
    squares[i] = sum;
  }
}
