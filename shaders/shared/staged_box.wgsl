// A box of loaded vectors in workgroup memory, rows of PITCH vectors, planes of PLANE rows: an index of its own for rows, so that neighbours in a
// row need no check of bounds each.
//
// Asks of the importing file: PLANES, ROWS, COLUMNS, PITCH, PLANE, WG, `load`, and `place`: where the vector at a place of the box, which
// begins at `origin`, lies in its channel block, times two, and one more where it is inside the source.
// Four loads are under way at a time. Between filling and reading there is a barrier.
// With BITS 16 what is staged is rounded to f16, and so is what is made of it until it joins the sum: see `factors` in specialise.rs.

const BITS: u32 = 32u;

alias Element = f32;
alias Factor = vec4<Element>;
alias Factors = mat4x4<Element>;

const BOX: u32 = PLANES * ROWS * COLUMNS;

var<workgroup> staged: array<array<Factor, PITCH>, PLANES * PLANE>;

// The vector at a place of the channel block that starts at `start`; zero outside the source.
fn loaded(place: u32, start: u32, c: Coef) -> vec4<f32> {
  let x = load(start + (place >> 1u), c);
  return select(vec4<f32>(0.0), x, (place & 1u) == 1u);
}

// The row of a vector of the box in workgroup memory.
fn staged_row(s: u32) -> u32 { return s / (ROWS * COLUMNS) * PLANE + s / COLUMNS % ROWS; }

// Fills the box; every lane of the workgroup calls.
fn stage(origin: vec3<u32>, start: u32, c: Coef, lane: u32) {
  for (var first = lane; first < BOX; first += 4u * WG) {
    var x: array<vec4<f32>, 4>;
    // unroll
    for (var r = 0u; r < 4u; r++) { x[r] = loaded(place(min(first + r * WG, BOX - 1u), origin), start, c); }
    // unroll
    for (var r = 0u; r < 4u; r++) {
      let s = first + r * WG;
      if (s < BOX) { staged[staged_row(s)][s % COLUMNS] = Factor(x[r]); }
    }
  }
}
