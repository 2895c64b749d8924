// Pointwise (1x1x1) convolution, stride 1, and its input gradient, with the weights held in registers.
//
//   y[n,o,v] = b[o] + sum_i w[o,i] * load(x)[n,i,v]           (TRANSPOSE: sum_o w[o,i] * load(dy)[n,o,v])
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j): as in pointwise.wgsl, which keeps outputs
// in registers instead and walks over the input blocks.
// A thread takes OUT output blocks and `steps` voxels. For INS input blocks at a time it loads weights and norm
// coefficients once and walks over its voxels, adding to its own outputs in memory after the first INS. INS divides `ins`.
// With the section MOMENTS each thread also gives mean, summed squared deviation and count of each block of its outputs, shifted by
// the first one: moments [all blocks of out, parts, 3], where parts are the threads of a block; the dispatch makes all of out.
// It pays where a load costs much more than arithmetic, as on software adapters.
// Source: MICCAI 2019, "3D U2-Net", section 2 (shared pointwise convolution).

struct Params {
  n: u32, voxels: u32, ins: u32, outs: u32,
  groups: u32, tiles: u32, cols: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_in: u32,
  src_base: u32, aux_base: u32, out_base: u32, weight_out: u32,
  h: u32, w: u32, steps: u32,
}

override TRANSPOSE: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const OUT: u32 = 4u;
const INS: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<mat4x4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
// section MOMENTS
@group(0) @binding(7) var<storage, read_write> moments: array<vec4<f32>>;
// end MOMENTS

// import load
// import source_voxel

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let tile = t % params.tiles; t = t / params.tiles;
  let n = t;
  if (n < params.n) {
    for (var i0 = 0u; i0 < params.ins; i0 += INS) {
      let source_block = n * params.src_blocks + i0;
      var m: array<array<mat4x4<f32>, INS>, OUT>;
      var c: array<Coef, INS>;
      // unroll
      for (var i = 0u; i < INS; i++) {
        c[i] = load_coef(params.coef_first + source_block + i);
        // unroll
        for (var o = 0u; o < OUT; o++) {
          let block = min(tile * OUT + o, params.outs - 1u);
          if (TRANSPOSE) {
            m[o][i] = weight[(params.weight_out + i0 + i) * params.cols + params.weight_in + block];
          } else {
            m[o][i] = weight[(params.weight_out + block) * params.cols + params.weight_in + i0 + i];
          }
        }
      }
      var b: array<vec4<f32>, OUT>;
      // unroll
      for (var o = 0u; o < OUT; o++) {
        b[o] = vec4<f32>(0.0);
        if (BIAS && i0 + INS >= params.ins) { b[o] = bias[params.weight_out + min(tile * OUT + o, params.outs - 1u)]; }
      }
      // section MOMENTS
      var shift: array<vec4<f32>, OUT>;
      var s1: array<vec4<f32>, OUT>;
      var s2: array<vec4<f32>, OUT>;
      // end MOMENTS
      for (var step = 0u; step < params.steps; step++) {
        // eight neighbouring lanes read whole cache lines one after another
        let v = ((group * (WG / 8u) + lane / 8u) * params.steps + step) * 8u + lane % 8u;
        let at = source_block * params.src_voxels + source_voxel(min(v, params.voxels - 1u), vec3<u32>(UD, UH, UW));
        var x: array<vec4<f32>, INS>;
        // unroll
        for (var i = 0u; i < INS; i++) { x[i] = load(at + i * params.src_voxels, c[i]); }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          if (v < params.voxels && tile * OUT + o < params.outs) {
            let target_index = params.out_base + (n * params.out_blocks + tile * OUT + o) * params.voxels + v;
            var y = vec4<f32>(0.0);
            if (ACC || i0 > 0u) { y = out[target_index]; }
            // unroll
            for (var i = 0u; i < INS; i++) {
              if (TRANSPOSE) {
                y = y + x[i] * m[o][i];
              } else {
                y = y + fma(m[o][i][0], vec4<f32>(x[i].x), fma(m[o][i][1], vec4<f32>(x[i].y), fma(m[o][i][2], vec4<f32>(x[i].z), m[o][i][3] * x[i].w)));
              }
            }
            if (BIAS) { y = y + b[o]; }
            out[target_index] = y;
            // section MOMENTS
            if (step == 0u) { shift[o] = y; }
            let u = y - shift[o];
            s1[o] += u;
            s2[o] = fma(u, u, s2[o]);
            // end MOMENTS
          }
        }
      }
      // section MOMENTS
      if (i0 + INS >= params.ins) {
        let first = (group * (WG / 8u) + lane / 8u) * params.steps * 8u + lane % 8u;
        let count = min((max(params.voxels, first) - first + 7u) / 8u, params.steps);
        // unroll
        for (var o = 0u; o < OUT; o++) {
          if (tile * OUT + o < params.outs) {
            let mean = s1[o] / max(f32(count), 1.0);
            let part = ((n * params.out_blocks + tile * OUT + o) * params.groups * WG + group * WG + lane) * 3u;
            moments[part] = mean + shift[o];
            moments[part + 1u] = max(s2[o] - s1[o] * mean, vec4<f32>(0.0));
            moments[part + 2u] = vec4<f32>(f32(count));
          }
        }
      }
      // end MOMENTS
    }
  }
}
