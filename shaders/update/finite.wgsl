// Looks for values that no update can be made of: infinities, what is no number, and magnitudes from 2^62 on, whose squares Adam's
// second moment could not hold.
//
//   state.overflow |= any(|values[i]| >= 2^62 or values[i] is no number)
//
// Bindings: values [count] vec4, a range of the parameters' gradients, or the loss; state [8] words (see loss_scale.wgsl), of which
// word 2 is the flag. A thread takes RUN vectors. They are told by their bits: implementations may assume that all numbers are finite.
// Source: Micikevicius et al. 2018, "Mixed precision training" (dynamic loss scaling).

struct Params { count: u32 }

override WG: u32 = 64u;

const RUN: u32 = 4u;
// the bits of 2^62; those of larger magnitudes, infinities and NaNs are larger numbers
const LARGEST: u32 = 0x5e800000u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> state: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) ng: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * ng.x;
  let magnitude = vec4<u32>(0x7fffffffu);
  var found = false;
  // unroll
  for (var j = 0u; j < RUN; j++) {
    let i = (group * RUN + j) * WG + lane;
    if (i < params.count) { found = found || any((values[i] & magnitude) >= vec4<u32>(LARGEST)); }
  }
  if (found) { atomicMax(&state[2], 1u); }
}
