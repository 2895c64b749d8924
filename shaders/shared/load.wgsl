// What a convolution or its input gradient reads: a tensor normalised and activated (NORM, ACT), or with GRAD the gradient
// before both, formed from the one after.
//
// Asks of the importing file, bindings of vec4 (4 channel lanes):
//   src   raw tensor, or with GRAD the gradient of the normalised, activated tensor, from params.src_base on
//   aux   with GRAD the raw tensor, from params.aux_base on (else unused)
//   coef  a channel block's mean, scale, shift, 1/std; with GRAD mean, scale, shift, m1, k
// Declares the switches NORM, ACT, GRAD.
// Source: activation.wgsl.

// import activation

override NORM: bool = false;
override ACT: u32 = 0u;
override GRAD: bool = false;

// Coefficients of a channel block.
fn load_coef(block: u32) -> Coef {
  var c: Coef;
  if (NORM) {
    if (GRAD) {
      c = Coef(coef[block * 5u], coef[block * 5u + 1u], coef[block * 5u + 2u], coef[block * 5u + 3u], coef[block * 5u + 4u]);
    } else {
      c.mean = coef[block * 4u];
      c.scale = coef[block * 4u + 1u];
      c.shift = coef[block * 4u + 2u];
    }
  }
  return c;
}

fn load(i: u32, c: Coef) -> vec4<f32> {
  if (GRAD) { return derived(src[params.src_base + i], aux[params.aux_base + i], c, NORM, ACT); }
  return activated(src[params.src_base + i], c, NORM, ACT);
}
