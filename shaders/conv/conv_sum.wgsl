// Sums what parts of the input blocks made of a convolution, in a fixed order.
//
//   out[n,o,v] = b[o] + sum_s src[s,n,o,v]           (ACC: added to out)
//
// Bindings (vec4 = 4 channel lanes): src [splits, N, outs, voxels], bias [OB], out [N, OB, voxels]
// One thread an output vec4.
// Source: split-K without atomics, so that results repeat to the bit.

struct Params {
  n: u32, outs: u32, voxels: u32, splits: u32,
  weight_out: u32, out_blocks: u32, out_base: u32,
}

override BIAS: bool = false;
override ACC: bool = false;
override WG: u32 = 64u;

// parts that are loaded at a time
const STEP: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let count = params.n * params.outs * params.voxels;
  if (t < count) {
    let sample_block = t / params.voxels;
    let block = sample_block % params.outs;
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < params.splits; s += STEP) {
      // unroll
      for (var r = 0u; r < STEP; r++) {
        let x = src[min(s + r, params.splits - 1u) * count + t];
        sum = sum + select(vec4<f32>(0.0), x, s + r < params.splits);
      }
    }
    let at = params.out_base + (sample_block / params.outs * params.out_blocks + block) * params.voxels + t % params.voxels;
    if (BIAS) { sum = sum + bias[params.weight_out + block]; }
    if (ACC) { sum = sum + out[at]; }
    out[at] = sum;
  }
}
