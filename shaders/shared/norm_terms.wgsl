// The two sums of the instance norm gradient, term by term.
//
//   first += dz, second += dz * (r - mean);  dz = da * act'(z), z = (r - mean) * scale + shift
//
// Asks of the importing file, bindings of vec4 (4 channel lanes): da from params.da_base on, r from params.r_base on, coef
// [N*CB, 4]. Declares the switches NORM and ACT.
// Source: the chain rule; the reductions of the batch norm backward pass.

// import activation
// import sums

override NORM: bool = true;
override ACT: u32 = 0u;

// Coefficients of a channel block; without NORM z is r.
fn norm_coef(block: u32) -> Coef {
  var c: Coef;
  c.scale = vec4<f32>(1.0);
  if (NORM) {
    c.mean = coef[block * 4u];
    c.scale = coef[block * 4u + 1u];
    c.shift = coef[block * 4u + 2u];
  }
  return c;
}

// What a term is made of.
struct Term { after: vec4<f32>, raw: vec4<f32> }

fn load_term(i: u32) -> Term {
  var term: Term;
  term.after = da[params.da_base + i];
  if (NORM || ACT != 0u) { term.raw = r[params.r_base + i]; }
  return term;
}

fn add_loaded(sums: Sums, term: Term, c: Coef) -> Sums {
  var dz = term.after;
  var second = sums.second;
  if (NORM || ACT != 0u) {
    let centred = term.raw - c.mean;
    dz = unactivated(dz, fma(centred, c.scale, c.shift), ACT);
    second = fma(dz, centred, second);
  }
  return Sums(sums.first + dz, second);
}

fn add_term(sums: Sums, i: u32, c: Coef) -> Sums {
  return add_loaded(sums, load_term(i), c);
}
