// Measures an adapter's rate of fused multiply-adds: out[i] = sum of eight chains a = a * s + t of `steps` links each.
//
// Bindings: out [threads] vec4; `scale` and `shift` keep the chains finite and unknown to the compiler.
// Source: the peak rate that a roofline needs (Williams, Waterman, Patterson 2009).

struct Params { steps: u32, threads: u32, scale: f32, shift: f32 }

override WG: u32 = 64u;

const CHAINS: u32 = 8u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let s = vec4<f32>(params.scale);
  let d = vec4<f32>(params.shift);
  var a: array<vec4<f32>, CHAINS>;
  // unroll
  for (var j = 0u; j < CHAINS; j++) { a[j] = vec4<f32>(f32(t + j) * 1e-6); }
  for (var step = 0u; step < params.steps; step++) {
    // unroll
    for (var k = 0u; k < 8u; k++) {
      // unroll
      for (var j = 0u; j < CHAINS; j++) { a[j] = fma(a[j], s, d); }
    }
  }
  var sum = vec4<f32>(0.0);
  // unroll
  for (var j = 0u; j < CHAINS; j++) { sum += a[j]; }
  if (t < params.threads) { out[t] = sum; }
}
