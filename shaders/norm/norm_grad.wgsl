// First pass of the instance norm gradient: the two sums over each channel, in parts.
//
//   dz = da * act'(z),  z = (r - mean) * scale + shift
//   partial[n,c,p] = (sum dz, sum dz * (r - mean)) over part p
//
// Without NORM (a bias gradient) only the first sum is meant; ACT then looks at the sign of r.
// Bindings (vec4 = 4 channel lanes): da, r [N, CB, V], coef [N*CB, 4], partial [N*CB, chunks*WG, 2]
// A workgroup takes one chunk of one channel block. Eight neighbouring lanes share a run of it, so that they read whole
// cache lines one after another.
// Source: the chain rule; the reductions of the batch norm backward pass.

struct Params { blocks: u32, voxels: u32, chunk: u32, chunks: u32, da_base: u32, r_base: u32, first: u32 }

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> da: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> coef: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<vec4<f32>>;

// import norm_terms

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = wg.x + wg.y * ng.x;
  let chunk = t % params.chunks;
  let block = t / params.chunks;
  if (block < params.blocks) {
    let begin = chunk * params.chunk;
    let run = params.chunk / (WG / 8u);
    let first = begin + lane / 8u * run + lane % 8u;
    let end = min(begin + (lane / 8u + 1u) * run, params.voxels);
    let c = norm_coef(params.first + block);
    var own: Sums;
    for (var v = first; v < end; v += 8u) { own = add_term(own, block * params.voxels + v, c); }
    let at = (((params.first + block) * params.chunks + chunk) * WG + lane) * 2u;
    partial[at] = own.first;
    partial[at + 1u] = own.second;
  }
}
