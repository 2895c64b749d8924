// Inputs of a convolution from a plane of a source that may be upsampled along H and W; zero in the padding.
//
// Asks of the importing file: what load.wgsl asks, UH and UW, params.ih and params.iw (the size that the taps see), params.ph
// and params.pw (leading padding).
// Source: conv.wgsl.

// import load

// Where a plane begins, and whether it is there at all.
struct Plane { start: u32, inside: bool }

// An input of a plane by row and column, counted with the padding.
fn fetch(plane: Plane, c: Coef, row: u32, column: u32) -> vec4<f32> {
  let inside = plane.inside && row >= params.ph && row < params.ih + params.ph && column >= params.pw && column < params.iw + params.pw;
  let y = (clamp(row, params.ph, params.ih + params.ph - 1u) - params.ph) / UH;
  let x = (clamp(column, params.pw, params.iw + params.pw - 1u) - params.pw) / UW;
  return select(vec4<f32>(0.0), load(plane.start + y * (params.iw / UW) + x, c), inside);
}
