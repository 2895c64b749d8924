// Maximum and sum of the exponentials of class scores, four voxels at a time.
//
// Asks of the importing file: what columns.wgsl asks, and params.first_class.
// Source: the softmax's sum, shifted by the maximum against overflow.

// import columns

// Of each of four voxels the largest score, and the sum of exp(score - largest).
struct Whole { peak: vec4<f32>, sum: vec4<f32> }

fn nothing() -> Whole {
  return Whole(vec4<f32>(LOWEST), vec4<f32>(0.0));
}

fn exponentials(f: Four, peak: vec4<f32>) -> vec4<f32> {
  return exp(f.a - peak) + exp(f.b - peak) + exp(f.c - peak) + exp(f.d - peak);
}

// Adds the bound blocks of a row, of which the first is given.
fn add_blocks(before: Whole, row: Row, first: Four, p: Places) -> Whole {
  var f = first;
  var peak = max(before.peak, max(max(f.a, f.b), max(f.c, f.d)));
  for (var b = 1u; b < params.blocks; b++) {
    f = classes_of(row, b, params.first_class + 4u * b, p);
    peak = max(peak, max(max(f.a, f.b), max(f.c, f.d)));
  }
  var sum = before.sum * exp(before.peak - peak) + exponentials(first, peak);
  for (var b = 1u; b < params.blocks; b++) {
    sum += exponentials(classes_of(row, b, params.first_class + 4u * b, p), peak);
  }
  return Whole(peak, sum);
}
