//! Surfaces of masks, and the exact Euclidean distance transform (Felzenszwalb and Huttenlocher, 2012).

/// Voxels of a mask (D, H, W) with a face neighbour outside it.
pub fn surface_of(mask: &[bool], shape: [usize; 3]) -> Vec<bool> {
    let [d, h, w] = shape;
    let mut surface = vec![false; mask.len()];
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let index = (z * h + y) * w + x;
                surface[index] = mask[index]
                    && [(z, d, h * w), (y, h, w), (x, w, 1)].into_iter().any(
                        |(at, extent, stride)| {
                            at == 0
                                || at + 1 == extent
                                || !mask[index - stride]
                                || !mask[index + stride]
                        },
                    );
            }
        }
    }
    surface
}

/// Exact squared Euclidean distance (mm²) of every voxel of a D, H, W volume to the nearest `true` voxel; infinite where
/// there is none. Linear time.
pub fn squared_distances(mask: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let [_, h, w] = shape;
    let mut field: Vec<f64> = mask.iter().map(|on| if *on { 0.0 } else { f64::INFINITY }).collect();
    let strides = [h * w, w, 1];
    for axis in [2, 1, 0] {
        let (extent, stride) = (shape[axis], strides[axis]);
        let mut line = Line::new(extent, spacing[axis] * spacing[axis]);
        for start in (0..field.len()).filter(|i| i / stride % extent == 0) {
            for (q, value) in line.values.iter_mut().enumerate() {
                *value = field[start + q * stride];
            }
            line.transform(|q, value| field[start + q * stride] = value);
        }
    }
    field
}

/// One line of the distance transform: the lower envelope of the parabolas `values[q] + weight (p − q)²`.
struct Line {
    values: Vec<f64>,
    /// Squared spacing.
    weight: f64,
    /// Positions of the parabolas of the envelope.
    parabolas: Vec<usize>,
    /// Where each of them takes over from the one before.
    borders: Vec<f64>,
}

impl Line {
    fn new(extent: usize, weight: f64) -> Self {
        let (values, parabolas, borders) = (vec![0.0; extent], Vec::new(), Vec::new());
        Self { values, weight, parabolas, borders }
    }

    /// Calls `store(p, envelope at p)` for every p, in order.
    fn transform(&mut self, mut store: impl FnMut(usize, f64)) {
        self.parabolas.clear();
        self.borders.clear();
        for (q, &value) in self.values.iter().enumerate() {
            if value.is_infinite() {
                continue;
            }
            let mut border = f64::NEG_INFINITY;
            while let (Some(&last), Some(&start)) = (self.parabolas.last(), self.borders.last()) {
                let rise = (value - self.values[last]) / self.weight;
                let (a, b) = (last as f64, q as f64);
                border = (rise + b * b - a * a) / (2.0 * (b - a));
                if border > start {
                    break;
                }
                self.parabolas.pop();
                self.borders.pop();
                border = f64::NEG_INFINITY;
            }
            self.parabolas.push(q);
            self.borders.push(border);
        }
        let mut current = 0;
        for p in 0..self.values.len() {
            while self.borders.get(current + 1).is_some_and(|&border| border < p as f64) {
                current += 1;
            }
            let value = self.parabolas.get(current).map_or(f64::INFINITY, |&q| {
                let offset = p as f64 - q as f64;
                self.values[q] + self.weight * offset * offset
            });
            store(p, value);
        }
    }
}
