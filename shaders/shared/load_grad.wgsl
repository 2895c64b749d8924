// What a weight gradient reads: the input, normalised and activated (NORM, ACT), and the output gradient, formed from the one
// after norm and activation (GNORM, GACT).
//
// Asks of the importing file, bindings of vec4 (4 channel lanes):
//   src    raw input, from params.src_base on
//   coef   its channel blocks' mean, scale, shift, 1/std, from block params.coef_first on
//   dy     gradient of the normalised, activated output, from params.dy_base on
//   raw    raw output, from params.raw_base on; unused where GNORM and GACT are off
//   gcoef  its channel blocks' mean, scale, shift, m1, k, from block params.gcoef_first on
// Declares the switches NORM, ACT, GNORM, GACT.
// Source: activation.wgsl.

// import activation

override NORM: bool = false;
override ACT: u32 = 0u;
override GNORM: bool = false;
override GACT: u32 = 0u;

fn load_coef(block: u32) -> Coef {
  var c: Coef;
  if (NORM) {
    let at = (params.coef_first + block) * 4u;
    c.mean = coef[at];
    c.scale = coef[at + 1u];
    c.shift = coef[at + 2u];
  }
  return c;
}

fn load(i: u32, c: Coef) -> vec4<f32> {
  return activated(src[params.src_base + i], c, NORM, ACT);
}

fn load_grad_coef(block: u32) -> Coef {
  var c: Coef;
  if (GNORM) {
    let at = (params.gcoef_first + block) * 5u;
    c = Coef(gcoef[at], gcoef[at + 1u], gcoef[at + 2u], gcoef[at + 3u], gcoef[at + 4u]);
  }
  return c;
}

fn load_grad(i: u32, c: Coef) -> vec4<f32> {
  if (GNORM || GACT != 0u) { return derived(dy[params.dy_base + i], raw[params.raw_base + i], c, GNORM, GACT); }
  return dy[params.dy_base + i];
}
