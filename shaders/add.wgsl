// Sum of two tensors read through their loads, or (without TWO) a single load written out.
//
//   out[n,c,d,h,w] = load(a) + load(b)
//
// Each load is a raw tensor, a normalised and activated one (ANORM, AACT), an upsampled one (AUD, AUH, AUW), or a
// gradient formed on the fly (AGRAD); likewise B.
// Bindings (vec4 = 4 channel lanes): a, b [N, CB, D/UD, H/UH, W/UW], aaux, baux [N, CB, D, H, W], acoef, bcoef [N*CB, 4 or 5]
// as in depthwise.wgsl; out [N, CB, D, H, W]. One thread a vec4.
// Source: residual and deep-supervision sums of the published 3D U2-Net.

struct Params {
  blocks: u32, voxels: u32, h: u32, w: u32,
  first: u32, a_base: u32, b_base: u32, aaux_base: u32,
  baux_base: u32, out_base: u32, a_voxels: u32, b_voxels: u32,
}

override TWO: bool = true;
override ANORM: bool = false;
override AACT: bool = false;
override AGRAD: bool = false;
override AUD: u32 = 1u;
override AUH: u32 = 1u;
override AUW: u32 = 1u;
override BNORM: bool = false;
override BACT: bool = false;
override BGRAD: bool = false;
override BUD: u32 = 1u;
override BUH: u32 = 1u;
override BUW: u32 = 1u;
override WG: u32 = 64u;

const SLOPE: f32 = 0.01;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aaux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> acoef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> baux: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> bcoef: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

fn lowered(v: u32, ud: u32, uh: u32, uw: u32) -> u32 {
  if (ud * uh * uw == 1u) { return v; }
  let x = v % params.w;
  let y = (v / params.w) % params.h;
  let z = v / (params.w * params.h);
  return ((z / ud) * (params.h / uh) + y / uh) * (params.w / uw) + x / uw;
}

fn load_a(block: u32, v: u32) -> vec4<f32> {
  var u = a[params.a_base + block * params.a_voxels + lowered(v, AUD, AUH, AUW)];
  if (AGRAD) {
    let r = aaux[params.aaux_base + block * params.voxels + v];
    if (ANORM) {
      let c = (params.first + block) * 5u;
      let centred = r - acoef[c];
      if (AACT) { u = select(u * SLOPE, u, centred * acoef[c + 1u] + acoef[c + 2u] > vec4<f32>(0.0)); }
      return acoef[c + 1u] * (u - acoef[c + 3u] - centred * acoef[c + 4u]);
    }
    if (AACT) { u = select(u * SLOPE, u, r > vec4<f32>(0.0)); }
    return u;
  }
  if (ANORM) {
    let c = (params.first + block) * 4u;
    u = (u - acoef[c]) * acoef[c + 1u] + acoef[c + 2u];
  }
  if (AACT) { u = max(u, u * SLOPE); }
  return u;
}

fn load_b(block: u32, v: u32) -> vec4<f32> {
  var u = b[params.b_base + block * params.b_voxels + lowered(v, BUD, BUH, BUW)];
  if (BGRAD) {
    let r = baux[params.baux_base + block * params.voxels + v];
    if (BNORM) {
      let c = (params.first + block) * 5u;
      let centred = r - bcoef[c];
      if (BACT) { u = select(u * SLOPE, u, centred * bcoef[c + 1u] + bcoef[c + 2u] > vec4<f32>(0.0)); }
      return bcoef[c + 1u] * (u - bcoef[c + 3u] - centred * bcoef[c + 4u]);
    }
    if (BACT) { u = select(u * SLOPE, u, r > vec4<f32>(0.0)); }
    return u;
  }
  if (BNORM) {
    let c = (params.first + block) * 4u;
    u = (u - bcoef[c]) * bcoef[c + 1u] + bcoef[c + 2u];
  }
  if (BACT) { u = max(u, u * SLOPE); }
  return u;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let v = t % params.voxels;
  let block = t / params.voxels;
  if (block < params.blocks) {
    var u = load_a(block, v);
    if (TWO) { u += load_b(block, v); }
    out[params.out_base + t] = u;
  }
}
