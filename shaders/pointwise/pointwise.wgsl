// Pointwise (1x1x1) convolution, stride 1, and its input gradient: a matrix product per voxel.
//
//   y[n,o,v] = b[o] + sum_i w[o,i] * load(x)[n,i,v]           (TRANSPOSE: sum_o w[o,i] * load(dy)[n,o,v])
//
// Bindings (vec4 = 4 channel lanes; mat4x4 column j = weights of input lane j):
//   src [N, SB, V], aux, coef: as in depthwise.wgsl; UD, UH, UW read an upsampled source
//   weight [OB, cols] mat4x4, read from block (weight_out, weight_in); with TRANSPOSE the source runs over OB
//   bias [OB], out [N, OB, V]
// A thread keeps VOX voxels times OUT output blocks in registers and walks over the input blocks, STEPS times; neighbouring
// threads take neighbouring voxels.
// With the section MOMENTS each workgroup also gives mean and summed squared deviation of each block of its outputs, WG * VOX * STEPS
// voxels:
//   moments [all blocks of out, groups, 3], of which the third is left; the dispatch makes all of out
// Source: MICCAI 2019, "3D U2-Net", section 2 (shared pointwise convolution).

struct Params {
  n: u32, voxels: u32, ins: u32, outs: u32,
  groups: u32, tiles: u32, cols: u32, src_voxels: u32,
  src_blocks: u32, coef_first: u32, out_blocks: u32, weight_in: u32,
  src_base: u32, aux_base: u32, out_base: u32, weight_out: u32,
  h: u32, w: u32,
}

override TRANSPOSE: bool = false;
override BIAS: bool = true;
override ACC: bool = false;
override UD: u32 = 1u;
override UH: u32 = 1u;
override UW: u32 = 1u;
override WG: u32 = 64u;

const VOX: u32 = 2u;
const OUT: u32 = 4u;
const STEPS: u32 = 1u;

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

// section MOMENTS
// import group_moments
// otherwise
struct Place { @builtin(local_invocation_index) lane: u32 }
// end MOMENTS

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, place: Place) {
  let lane = place.lane;
  var t = wg.x + wg.y * ng.x;
  let group = t % params.groups; t = t / params.groups;
  let tile = t % params.tiles; t = t / params.tiles;
  let n = t;
  if (n < params.n) {
    // section MOMENTS
    var count = 0u;
    var shift: array<vec4<f32>, OUT>;
    var s1: array<vec4<f32>, OUT>;
    var s2: array<vec4<f32>, OUT>;
    // unroll
    for (var o = 0u; o < OUT; o++) { s1[o] = vec4<f32>(0.0); s2[o] = vec4<f32>(0.0); shift[o] = vec4<f32>(0.0); }
    // end MOMENTS
    // section STEPS
    for (var step = 0u; step < STEPS; step++) {
    // otherwise
    let step = 0u;
    {
    // end STEPS
      let first = (group * STEPS + step) * WG * VOX + lane;
      var at: array<u32, VOX>;
      var y: array<array<vec4<f32>, OUT>, VOX>;
      // unroll
      for (var j = 0u; j < VOX; j++) {
        at[j] = source_voxel(min(first + j * WG, params.voxels - 1u), vec3<u32>(UD, UH, UW));
        // unroll
        for (var o = 0u; o < OUT; o++) {
          y[j][o] = vec4<f32>(0.0);
        }
      }
      for (var i = 0u; i < params.ins; i++) {
        let source_block = n * params.src_blocks + i;
        let c = load_coef(params.coef_first + source_block);
        let start = source_block * params.src_voxels;
        var x: array<vec4<f32>, VOX>;
        // unroll
        for (var j = 0u; j < VOX; j++) { x[j] = load(start + at[j], c); }
        // unroll
        for (var o = 0u; o < OUT; o++) {
          let block = min(tile * OUT + o, params.outs - 1u);
          if (TRANSPOSE) {
            let m = weight[(params.weight_out + i) * params.cols + params.weight_in + block];
            // unroll
            for (var j = 0u; j < VOX; j++) { y[j][o] = y[j][o] + x[j] * m; }
          } else {
            let m = weight[(params.weight_out + block) * params.cols + params.weight_in + i];
            // unroll
            for (var j = 0u; j < VOX; j++) { y[j][o] = y[j][o] + fma(m[0], vec4<f32>(x[j].x), fma(m[1], vec4<f32>(x[j].y), fma(m[2], vec4<f32>(x[j].z), m[3] * x[j].w))); }
          }
        }
      }
      // unroll
      for (var j = 0u; j < VOX; j++) {
        let v = first + j * WG;
        // unroll
        for (var o = 0u; o < OUT; o++) {
          if (v < params.voxels && tile * OUT + o < params.outs) {
            let target_index = params.out_base + (n * params.out_blocks + tile * OUT + o) * params.voxels + v;
            if (BIAS) { y[j][o] = y[j][o] + bias[params.weight_out + tile * OUT + o]; }
            if (ACC) { y[j][o] = y[j][o] + out[target_index]; }
            out[target_index] = y[j][o];
          }
        }
      }
      // section MOMENTS
      let made = min((max(params.voxels, first) - first + WG - 1u) / WG, VOX);
      count += made;
      // unroll
      for (var o = 0u; o < OUT; o++) {
        if (step == 0u) { shift[o] = y[0][o]; }
        // unroll
        for (var j = 0u; j < VOX; j++) {
          let u = select(vec4<f32>(0.0), y[j][o] - shift[o], j < made);
          s1[o] += u;
          s2[o] = fma(u, u, s2[o]);
        }
      }
      // end MOMENTS
    }
    // section MOMENTS
    let share = WG * VOX * STEPS;
    let total = min(share, params.voxels - group * share);
    // unroll
    for (var o = 0u; o < OUT; o++) {
      let mean = s1[o] / max(f32(count), 1.0);
      let own = Moments(shift[o] + mean, max(s2[o] - s1[o] * mean, vec4<f32>(0.0)));
      let all = group_moments(own, f32(count), f32(total), place);
      if (lane == 0u && tile * OUT + o < params.outs) {
        let part = ((n * params.out_blocks + tile * OUT + o) * params.groups + group) * 3u;
        moments[part] = all.mean;
        moments[part + 1u] = all.square;
      }
      workgroupBarrier();
    }
    // end MOMENTS
  }
}
