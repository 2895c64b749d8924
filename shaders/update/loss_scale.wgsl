// What becomes of a step, and the loss scale after it: halved where a value overflowed, doubled after `growth` good steps. With
// growth 0 the scale stays as it is, as in f32, where it is 1.
//
//   skip = overflow;  inverse = 1 / scale          what the optimizer does with this step's gradients
//   skip before = skip of the step before          which update this one is for Adam
//   overflow:  scale = max(scale / 2, 1);  good = 0;  skipped += 1;  hopeless = the scale could not fall
//   else:      good += 1;  good = growth:  scale = min(2 scale, 2^24);  good = 0;  hopeless = 0
//
// Bindings: state [8] words: 0 scale f32, 1 good steps, 2 overflow, 3 skip, 4 inverse f32, 5 skipped steps, 6 hopeless, 7 skip before.
// One thread.
// Source: Micikevicius et al. 2018, "Mixed precision training" (dynamic loss scaling).

struct Params { growth: u32 }

const LARGEST: f32 = 16777216.0;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;

@compute @workgroup_size(1)
fn main() {
  let scale = bitcast<f32>(state[0]);
  let stays = params.growth == 0u;
  let overflow = state[2];
  var next = scale;
  var good = 0u;
  if (overflow != 0u) {
    next = select(max(scale * 0.5, 1.0), scale, stays);
    state[5] = state[5] + 1u;
  } else {
    good = state[1] + 1u;
    if (!stays && good >= params.growth) {
      next = min(scale * 2.0, LARGEST);
      good = 0u;
    }
  }
  state[0] = bitcast<u32>(next);
  state[1] = good;
  state[2] = 0u;
  state[6] = select(0u, overflow, next >= scale);
  state[7] = state[3];
  state[3] = overflow;
  state[4] = bitcast<u32>(1.0 / scale);
}
