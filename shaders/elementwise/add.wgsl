// Sum of two tensors read through their loads, or (without TWO) a single load written out.
//
//   out[n,c,d,h,w] = load(a) + load(b)
//
// Each load is a raw tensor, a normalised and activated one (ANORM, AACT), an upsampled one (AUD, AUH, AUW), or a
// gradient formed on the fly (AGRAD); likewise B.
// Bindings (vec4 = 4 channel lanes): a, b [N, CB, D/UD, H/UH, W/UW], aaux, baux [N, CB, D, H, W], acoef, bcoef [N*CB, 4 or 5]
// as in depthwise.wgsl; out [N, CB, D, H, W]. A thread takes `run` voxels of a channel block; eight neighbouring threads
// share their runs, so that they read whole cache lines one after another.
// Source: residual and deep-supervision sums of the published 3D U2-Net.

struct Params {
  blocks: u32, voxels: u32, h: u32, w: u32,
  first: u32, a_base: u32, b_base: u32, aaux_base: u32,
  baux_base: u32, out_base: u32, a_voxels: u32, b_voxels: u32,
  run: u32, per_block: u32,
}

override TWO: bool = true;
override ANORM: bool = false;
override AACT: u32 = 0u;
override AGRAD: bool = false;
override AUD: u32 = 1u;
override AUH: u32 = 1u;
override AUW: u32 = 1u;
override BNORM: bool = false;
override BACT: u32 = 0u;
override BGRAD: bool = false;
override BUD: u32 = 1u;
override BUH: u32 = 1u;
override BUW: u32 = 1u;
override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> aaux: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> acoef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> baux: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> bcoef: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

// import activation
// import source_voxel

fn coef_a(block: u32) -> Coef {
  var c: Coef;
  if (ANORM) {
    if (AGRAD) {
      c = Coef(acoef[block * 5u], acoef[block * 5u + 1u], acoef[block * 5u + 2u], acoef[block * 5u + 3u], acoef[block * 5u + 4u]);
    } else {
      c.mean = acoef[block * 4u];
      c.scale = acoef[block * 4u + 1u];
      c.shift = acoef[block * 4u + 2u];
    }
  }
  return c;
}

fn coef_b(block: u32) -> Coef {
  var c: Coef;
  if (BNORM) {
    if (BGRAD) {
      c = Coef(bcoef[block * 5u], bcoef[block * 5u + 1u], bcoef[block * 5u + 2u], bcoef[block * 5u + 3u], bcoef[block * 5u + 4u]);
    } else {
      c.mean = bcoef[block * 4u];
      c.scale = bcoef[block * 4u + 1u];
      c.shift = bcoef[block * 4u + 2u];
    }
  }
  return c;
}

fn load_a(block: u32, v: u32, c: Coef) -> vec4<f32> {
  let u = a[params.a_base + block * params.a_voxels + source_voxel(v, vec3<u32>(AUD, AUH, AUW))];
  if (AGRAD) { return derived(u, aaux[params.aaux_base + block * params.voxels + v], c, ANORM, AACT); }
  return activated(u, c, ANORM, AACT);
}

fn load_b(block: u32, v: u32, c: Coef) -> vec4<f32> {
  let u = b[params.b_base + block * params.b_voxels + source_voxel(v, vec3<u32>(BUD, BUH, BUW))];
  if (BGRAD) { return derived(u, baux[params.baux_base + block * params.voxels + v], c, BNORM, BACT); }
  return activated(u, c, BNORM, BACT);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = (wg.x + wg.y * ng.x) * WG + lane;
  let slot = t % params.per_block;
  let block = t / params.per_block;
  if (block < params.blocks) {
    let ca = coef_a(params.first + block);
    var cb: Coef;
    if (TWO) { cb = coef_b(params.first + block); }
    let first = slot / 8u * 8u * params.run + slot % 8u;
    let end = min(first + 8u * params.run, params.voxels);
    for (var v = first; v < end; v += 8u) {
      var u = load_a(block, v, ca);
      if (TWO) { u += load_b(block, v, cb); }
      out[params.out_base + block * params.voxels + v] = u;
    }
  }
}
