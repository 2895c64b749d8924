// Looks for values that are not finite: sets the flag of the loss scale if a gradient holds an infinity or a NaN.
//
//   state.overflow |= any(grad[i] is infinite or no number)
//
// Bindings: grad [count] vec4, a range of the parameters' gradients; state [8] words (see loss_scale.wgsl), of which word 2 is
// the flag. A thread takes RUN vectors. They are told by their bits: implementations may assume that there are none.
// Source: Micikevicius et al. 2018, "Mixed precision training" (dynamic loss scaling).

struct Params { count: u32 }

override WG: u32 = 64u;

const RUN: u32 = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> state: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * ng.x;
  let exponent = vec4<u32>(0x7f800000u);
  var found = false;
  // unroll
  for (var j = 0u; j < RUN; j++) {
    let i = (group * RUN + j) * WG + lane;
    if (i < params.count) { found = found || any((grad[i] & exponent) == exponent); }
  }
  if (found) { atomicMax(&state[2], 1u); }
}
