// Resamples packed channels along one axis: each new row is a sum of neighbouring old rows.
//
//   out[o, i, n] = Σ_{k < taps} weights[i, k] * src[o, firsts[i] + k, n]
//
// Bindings (vec4 = 4 channel lanes)
//   src      vec4<f32> [outer, old, inner]  from the vector `src_base` on
//   firsts   u32 [new]
//   weights  f32 [new, taps]
//   out      vec4<f32> [outer, new, inner]  from the vector `out_base` on
// Two taps are linear interpolation; a cubic B-spline with its prefilter has as many as its weights are more than rounding.
// One thread: `chunk` new rows of one column.
// Dispatch: ceil(outer * ceil(new / chunk) * inner / WG) groups, folded into x and y.
// Source: separable resampling; the prefilter's response, Unser, "Splines: a perfect fit", 1999, as weights.

struct Params {
  // what lies before the axis
  outer: u32,
  old: u32,
  new_rows: u32,
  inner: u32,
  taps: u32,
  chunk: u32,
  src_base: u32,
  out_base: u32,
}

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> firsts: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let chunks = (params.new_rows + params.chunk - 1u) / params.chunk;
  let n = t % params.inner;
  let part = t / params.inner;
  let o = part / chunks;
  if (o < params.outer) {
    let begin = part % chunks * params.chunk;
    let column = params.src_base + o * params.old * params.inner + n;
    for (var row = begin; row < min(begin + params.chunk, params.new_rows); row++) {
      let source = column + firsts[row] * params.inner;
      var sum = vec4<f32>(0.0);
      for (var k = 0u; k < params.taps; k++) {
        sum += weights[row * params.taps + k] * src[source + k * params.inner];
      }
      out[params.out_base + (o * params.new_rows + row) * params.inner + n] = sum;
    }
  }
}
