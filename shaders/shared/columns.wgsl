// Packed class scores of four neighbours along W, interpolated between the columns that lie there.
//
// Asks of the importing file: the bindings scores, vec4<f32> [planes, blocks, height, columns], and places, vec4<f32> [words, 2]
// (of four voxels the columns before them, and the shares of the columns after those); params.columns, params.height,
// params.blocks, params.base (the first vector of scores) and params.classes. COLUMNS columns serve four voxels: 4 where each voxel has a column
// of its own and no place is read, else as many as lie about any four; with the section SPREAD each voxel reads its own two.
// Source: linear interpolation between voxel centres.

// Of lanes that are no class.
const LOWEST: f32 = -3.4e38;
const COLUMNS: u32 = 4u;

// The scores of four voxels, or of four classes at four voxels.
struct Four { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// A row of a plane, and where the first block of its scores begins.
struct Row { y: u32, start: u32 }

fn row_of(row: u32) -> Row {
  let y = row % params.height;
  return Row(y, params.base + (row / params.height * params.blocks * params.height + y) * params.columns);
}

fn next_row(row: Row) -> Row {
  // behind a plane's last row lie its other blocks
  let last = row.y + 1u == params.height;
  let others = select(0u, (params.blocks - 1u) * params.height, last);
  return Row(select(row.y + 1u, 0u, last), row.start + (others + 1u) * params.columns);
}

// section SPREAD
struct Places { low: vec4<u32>, high: vec4<u32>, t: vec4<f32> }

fn places_of(word: u32) -> Places {
  let low = vec4<u32>(places[2u * word]);
  return Places(low, min(low + 1u, vec4<u32>(params.columns - 1u)), places[2u * word + 1u]);
}

fn four(at: u32, p: Places) -> Four {
  let s = 1.0 - p.t;
  return Four(
    s.x * scores[at + p.low.x] + p.t.x * scores[at + p.high.x],
    s.y * scores[at + p.low.y] + p.t.y * scores[at + p.high.y],
    s.z * scores[at + p.low.z] + p.t.z * scores[at + p.high.z],
    s.w * scores[at + p.low.w] + p.t.w * scores[at + p.high.w],
  );
}
// otherwise
// The first column, and what each counts for each voxel.
struct Places { first: u32, weights: array<vec4<f32>, COLUMNS> }

fn places_of(word: u32) -> Places {
  var p: Places;
  p.first = 4u * word;
  if (COLUMNS != 4u) {
    let low = places[2u * word];
    let t = places[2u * word + 1u];
    let ahead = low - low.x;
    p.first = u32(low.x);
    // unroll
    for (var c = 0u; c < COLUMNS; c++) {
      let before = select(vec4<f32>(0.0), 1.0 - t, ahead == vec4<f32>(f32(c)));
      p.weights[c] = before + select(vec4<f32>(0.0), t, ahead + 1.0 == vec4<f32>(f32(c)));
    }
  }
  return p;
}

fn four(at: u32, p: Places) -> Four {
  var f: Four;
  let last = params.columns - 1u;
  if (COLUMNS == 4u) {
    f.a = scores[at + min(p.first, last)];
    f.b = scores[at + min(p.first + 1u, last)];
    f.c = scores[at + min(p.first + 2u, last)];
    f.d = scores[at + min(p.first + 3u, last)];
  } else {
    // unroll
    for (var c = 0u; c < COLUMNS; c++) {
      let x = scores[at + min(p.first + c, last)];
      f.a += p.weights[c].x * x;
      f.b += p.weights[c].y * x;
      f.c += p.weights[c].z * x;
      f.d += p.weights[c].w * x;
    }
  }
  return f;
}
// end SPREAD

// Classes k to k + 3, those of a block, at four voxels.
fn classes_of(row: Row, block: u32, k: u32, p: Places) -> Four {
  let f = four(row.start + block * params.height * params.columns, p);
  let none = vec4<f32>(LOWEST);
  return Four(
    vec4<f32>(f.a.x, f.b.x, f.c.x, f.d.x),
    select(none, vec4<f32>(f.a.y, f.b.y, f.c.y, f.d.y), k + 1u < params.classes),
    select(none, vec4<f32>(f.a.z, f.b.z, f.c.z, f.d.z), k + 2u < params.classes),
    select(none, vec4<f32>(f.a.w, f.b.w, f.c.w, f.d.w), k + 3u < params.classes),
  );
}
