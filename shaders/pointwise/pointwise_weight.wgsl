// Weight gradient of the pointwise convolution, a split-K matrix product, as partial sums.
//
//   partial[p,o,i] = sum over voxels v of part p of  load(dy)[n,o,v] * load(x)[n,i,v]
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = gradient for input lane j):
//   src [N, SB, V/(UD*UH*UW)], coef [N, SB, 4] (NORM, ACT); dy, raw [N, GB, V], gcoef [N, GB, 5] (GNORM, GACT)
//   partial [parts, OB, IB] mat4x4
// A thread owns OUT x IN blocks and a part of one sample's voxels. Eight neighbouring threads share a run of voxels, so
// that they read whole cache lines one after another. Each writes its own partial: no atomics, reproducible to the bit.
// Source: the chain rule of pointwise.wgsl.

struct Params {
  voxels: u32, ins: u32, outs: u32,
  parts: u32, in_tiles: u32, out_tiles: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, grad_blocks: u32, gcoef_first: u32,
  src_base: u32, dy_base: u32, raw_base: u32, part_first: u32,
  all_outs: u32, all_ins: u32, out_first: u32, in_first: u32,
  h: u32, w: u32, per_sample: u32, run: u32,
}

override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const OUT: u32 = 2u;
const IN: u32 = 2u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gcoef: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial: array<mat4x4<f32>>;

// import load_grad
// import source_voxel

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = (wg.x + wg.y * ng.x) * WG + lane;
  let part = t % params.parts; t = t / params.parts;
  let i0 = (t % params.in_tiles) * IN; t = t / params.in_tiles;
  let o0 = t * OUT;
  if (t < params.out_tiles) {
    var s: array<array<mat4x4<f32>, IN>, OUT>;
    // unroll
    for (var o = 0u; o < OUT; o++) {
      // unroll
      for (var i = 0u; i < IN; i++) { s[o][i] = mat4x4<f32>(); }
    }
    let n = part / params.per_sample;
    var c: array<Coef, IN>;
    var g: array<Coef, OUT>;
    // unroll
    for (var i = 0u; i < IN; i++) { c[i] = load_coef(n * params.src_blocks + min(i0 + i, params.ins - 1u)); }
    // unroll
    for (var o = 0u; o < OUT; o++) { g[o] = load_grad_coef(n * params.grad_blocks + min(o0 + o, params.outs - 1u)); }
    let slot = part % params.per_sample;
    let begin = slot / 8u * params.run;
    for (var v = begin + slot % 8u; v < min(begin + params.run, params.voxels); v += 8u) {
      let origin = source_voxel(v, vec3<u32>(UD, UH, UW));
      var x: array<vec4<f32>, IN>;
      // unroll
      for (var i = 0u; i < IN; i++) { x[i] = load((n * params.src_blocks + min(i0 + i, params.ins - 1u)) * params.src_voxels + origin, c[i]); }
      // unroll
      for (var o = 0u; o < OUT; o++) {
        let u = load_grad((n * params.grad_blocks + min(o0 + o, params.outs - 1u)) * params.voxels + v, g[o]);
        // unroll
        for (var i = 0u; i < IN; i++) {
          s[o][i][0] = fma(u, vec4<f32>(x[i].x), s[o][i][0]);
          s[o][i][1] = fma(u, vec4<f32>(x[i].y), s[o][i][1]);
          s[o][i][2] = fma(u, vec4<f32>(x[i].z), s[o][i][2]);
          s[o][i][3] = fma(u, vec4<f32>(x[i].w), s[o][i][3]);
        }
      }
    }
    // unroll
    for (var o = 0u; o < OUT; o++) {
      // unroll
      for (var i = 0u; i < IN; i++) {
        if (o0 + o < params.outs && i0 + i < params.ins) {
          partial[((params.part_first + part) * params.all_outs + params.out_first + o0 + o) * params.all_ins + params.in_first + i0 + i] = s[o][i];
        }
      }
    }
  }
}
