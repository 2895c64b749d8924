//! A synthetic abdominal CT with a labelled spleen, for demonstrations and tests without patient data.
//!
//! Anatomy is described in coordinates that run from −1 to 1 across the volume: x to the patient's right (the volume
//! is canonical RAS), y to the front, z to the head. Every case varies position, size, shape and intensity.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::grid::Grid;
use super::volume::{LabelMap, Volume, shaped};
use crate::base::Result;

/// Label of the spleen.
pub const SPLEEN: u8 = 1;

type Point = [f64; 3];

/// An ellipsoid, turned about the z axis and bent along its own y axis.
struct Organ {
    centre: Point,
    /// Half axes before turning.
    radii: Point,
    /// Sine and cosine of the angle.
    turn: (f64, f64),
    /// Shift along x for each squared unit along y, both in half axes.
    bend: f64,
    /// Phases and strength of the surface's waves.
    wave: ([f64; 3], f64),
    /// Hounsfield units.
    value: f64,
}

impl Organ {
    /// An organ with the case's own jitter.
    fn new(rng: &mut ChaCha8Rng, centre: Point, radii: Point, value: f64) -> Self {
        let mut around = |middle: f64, spread: f64| middle + spread * rng.random_range(-1.0..1.0);
        let centre = centre.map(|c| around(c, 0.03));
        let radii = radii.map(|r| r * around(1.0, 0.1));
        let phases = [around(0.0, 3.1), around(0.0, 3.1), around(0.0, 3.1)];
        let value = around(value, 6.0);
        Self { centre, radii, turn: (0.0, 1.0), bend: 0.0, wave: (phases, 0.05), value }
    }

    fn turned(mut self, degrees: f64) -> Self {
        self.turn = degrees.to_radians().sin_cos();
        self
    }

    fn bent(mut self, bend: f64) -> Self {
        self.bend = bend;
        self
    }

    fn smooth(mut self) -> Self {
        self.wave.1 = 0.0;
        self
    }

    /// Below 1 inside, 1 on the surface, growing outwards.
    fn level(&self, [x, y, z]: Point) -> f64 {
        let (sin, cos) = self.turn;
        let (dx, dy, dz) = (x - self.centre[0], y - self.centre[1], z - self.centre[2]);
        let v = (dy * cos - dx * sin) / self.radii[1];
        let u = (dx * cos + dy * sin) / self.radii[0] - self.bend * v * v;
        let w = dz / self.radii[2];
        let ([a, b, c], strength) = self.wave;
        let waves = (3.0 * u + a).sin() + (3.0 * v + b).sin() + (3.5 * w + c).sin();
        (u * u + v * v + w * w).sqrt() * (1.0 + strength * waves)
    }

    fn holds(&self, point: Point) -> bool {
        self.level(point) < 1.0
    }
}

/// One patient.
struct Anatomy {
    /// Half axes of the body's cross-section.
    body: (f64, f64),
    /// Share of the half axes that lies within the subcutaneous fat.
    rim: f64,
    liver: [Organ; 2],
    spleen: Organ,
    kidneys: [Organ; 2],
    stomach: Organ,
    air_level: f64,
    bowel: Vec<(Organ, f64)>,
    vessels: [Organ; 2],
    /// Height of the diaphragm's dome and phase of ribs and vertebrae along z.
    dome: f64,
    phase: f64,
}

impl Anatomy {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let spleen_turn = rng.random_range(-35.0..-10.0);
        let spleen_bend = rng.random_range(0.25..0.6);
        let spleen_size = rng.random_range(0.85..1.2);
        let spleen_radii = [0.13, 0.30, 0.40].map(|r| r * spleen_size);
        let mut bowel = Vec::new();
        for _ in 0..14 {
            let centre = [
                rng.random_range(-0.5..0.5),
                rng.random_range(0.05..0.48),
                rng.random_range(-1.0..-0.25),
            ];
            let radius = rng.random_range(0.06..0.12);
            let loop_ = Organ::new(rng, centre, [radius, radius, 1.3 * radius], 30.0);
            let air = loop_.centre[1] + radius * rng.random_range(0.0..2.0);
            bowel.push((loop_, air));
        }
        let aorta = Organ::new(rng, [-0.04, -0.20, 0.0], [0.055, 0.07, 9.0], 170.0);
        let cava = Organ::new(rng, [0.12, -0.18, 0.0], [0.07, 0.07, 9.0], 130.0);
        Self {
            body: (rng.random_range(0.86..0.94), rng.random_range(0.74..0.84)),
            rim: rng.random_range(0.86..0.93),
            liver: [
                Organ::new(rng, [0.40, 0.06, 0.22], [0.40, 0.50, 0.62], 108.0),
                Organ::new(rng, [0.05, 0.34, 0.34], [0.36, 0.17, 0.30], 108.0),
            ],
            spleen: Organ::new(rng, [-0.56, -0.20, 0.26], spleen_radii, 122.0)
                .turned(spleen_turn)
                .bent(spleen_bend),
            kidneys: [
                Organ::new(rng, [0.36, -0.36, -0.42], [0.11, 0.14, 0.34], 165.0).turned(20.0),
                Organ::new(rng, [-0.36, -0.36, -0.34], [0.11, 0.14, 0.34], 165.0).turned(-20.0),
            ],
            stomach: Organ::new(rng, [-0.24, 0.22, 0.30], [0.24, 0.24, 0.34], 25.0).turned(25.0),
            air_level: rng.random_range(0.26..0.38),
            bowel,
            vessels: [aorta.smooth(), cava.smooth()],
            dome: rng.random_range(0.62..0.78),
            phase: rng.random_range(0.0..1.0),
        }
    }

    /// Radius in the body's cross-section: 1 on the skin.
    fn girth(&self, x: f64, y: f64) -> f64 {
        let exponent = 2.3;
        let (a, b) = ((x / self.body.0).abs(), (y / self.body.1).abs());
        (a.powf(exponent) + b.powf(exponent)).powf(1.0 / exponent)
    }

    /// Hounsfield units and label at a point.
    fn sample(&self, point: Point) -> (f64, u8) {
        let [x, y, _] = point;
        let girth = self.girth(x, y);
        if girth > 1.0 {
            // The table below the patient.
            let sag = y + 0.93 - 0.05 * x * x;
            return (if (0.0..0.025).contains(&sag) { -350.0 } else { -1000.0 }, 0);
        }
        if girth > 0.985 {
            return (30.0, 0);
        }
        if self.spleen.holds(point) && girth < self.rim {
            return (self.spleen.value, SPLEEN);
        }
        let value = self
            .skeleton(point, girth)
            .or_else(|| (girth > self.rim).then_some(-100.0))
            .or_else(|| (girth > self.rim - 0.045).then_some(55.0))
            .or_else(|| self.viscera(point))
            .unwrap_or_else(|| self.cavity(point, girth));
        (value, 0)
    }

    /// Spine and ribs.
    fn skeleton(&self, [x, y, z]: Point, girth: f64) -> Option<f64> {
        let beat = (3.6 * z + self.phase).rem_euclid(1.0);
        let vertebra = (x / 0.15).hypot((y + 0.42) / 0.15);
        if vertebra < 1.0 {
            let disc = beat < 0.22;
            return Some(if disc { 85.0 } else { 210.0 + 260.0 * vertebra.powi(8) });
        }
        let canal = (x / 0.07).hypot((y + 0.615) / 0.055);
        if canal < 1.0 {
            return Some(25.0);
        }
        let arch = canal < 1.5 || (x.abs() < 0.022 && (-0.76..-0.66).contains(&y));
        if arch && beat > 0.3 {
            return Some(420.0);
        }
        let muscle = ((x.abs() - 0.17) / 0.15).hypot((y + 0.60) / 0.12);
        if muscle < 1.0 && girth < self.rim {
            return Some(60.0);
        }
        // Ribs slope down to the front; none at the front's midline.
        let band = girth / self.rim;
        let slanted = (3.2 * z + 1.3 * y + self.phase).rem_euclid(1.0);
        let across = ((band - 0.945) / 0.03).hypot((slanted - 0.5) / 0.17);
        let sideways = x.abs() > 0.16 && z > -0.75 + 0.6 * y.max(0.0);
        (across < 1.0 && sideways).then_some(250.0 + 350.0 * across.powi(4))
    }

    /// Organs but the spleen.
    fn viscera(&self, point: Point) -> Option<f64> {
        let [_, y, _] = point;
        if let Some(vessel) = self.vessels.iter().find(|vessel| vessel.holds(point)) {
            return Some(vessel.value);
        }
        if let Some(kidney) = self.kidneys.iter().find(|kidney| kidney.holds(point)) {
            let level = kidney.level(point);
            return Some(match level {
                ..0.35 => -20.0,
                ..0.7 => kidney.value - 45.0,
                _ => kidney.value + 20.0,
            });
        }
        let [right, left] = self.liver.each_ref().map(|lobe| lobe.level(point));
        // A soft union, so that the lobes run into each other.
        let union = -((-8.0 * right).exp() + (-8.0 * left).exp()).ln() / 8.0;
        if union < 0.97 {
            let [x, y, z] = point;
            let branch = (9.0 * x + 4.0 * y).sin() * (8.0 * y - 3.0 * z).sin() * (7.0 * z).cos();
            let vein = if branch > 0.72 { 35.0 } else { 0.0 };
            return Some(self.liver[0].value + vein);
        }
        if self.stomach.holds(point) {
            let wall = self.stomach.level(point) > 0.92;
            let air = y > self.air_level;
            return Some(match (wall, air) {
                (true, _) => 65.0,
                (false, true) => -950.0,
                (false, false) => self.stomach.value,
            });
        }
        let (part, air) = self.bowel.iter().find(|(part, _)| part.holds(point))?;
        Some(if y > *air { -900.0 } else { part.value })
    }

    /// What lies between the organs: lung above the diaphragm, else fat with strands of tissue.
    fn cavity(&self, [x, y, z]: Point, girth: f64) -> f64 {
        let lateral = ((x.abs() - 0.42) / 0.45).hypot((y + 0.05) / 0.7);
        let mediastinum = x.abs() < 0.1 && y < 0.2;
        if z > self.dome - 0.55 * lateral * lateral + 0.2 && !mediastinum && girth < self.rim {
            let branch = (17.0 * x).sin() * (15.0 * y).sin() * (13.0 * z).sin();
            return if branch > 0.8 { 20.0 } else { -840.0 };
        }
        let strand = (11.0 * x + 3.0 * z).sin() * (12.0 * y - 2.0 * z).sin() * (9.0 * z + x).cos();
        -85.0 + 90.0 * strand.max(0.0).powi(2)
    }
}

/// A CT in Hounsfield units, of one channel, and its labels (1 = spleen), both of `shape` voxels along D, H, W.
///
/// `spacing` is in millimetres (D, H, W) and sets how far the image blurs. The same seed, shape and spacing give the
/// same case on every machine; another seed gives another patient.
///
/// # Errors
///
/// Where the shape has no voxels.
pub fn ct_phantom(seed: u64, shape: [usize; 3], spacing: [f64; 3]) -> Result<(Volume, LabelMap)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let anatomy = Anatomy::new(&mut rng);
    let [d, h, w] = shape;
    let at = |index: usize, extent: usize| (2 * index + 1) as f64 / extent as f64 - 1.0;
    let (mut image, labels): (Vec<f32>, Vec<u8>) = (0..d * h * w)
        .into_par_iter()
        .map(|index| {
            let (z, y, x) = (index / (h * w), index / w % h, index % w);
            let (value, label) = anatomy.sample([at(x, w), at(y, h), at(z, d)]);
            (value as f32, label)
        })
        .unzip();
    let finest = spacing.iter().copied().fold(f64::INFINITY, f64::min);
    let mut noise: Vec<f32> = (0..image.len()).map(|_| normal(&mut rng) * 26.0).collect();
    for (axis, size) in spacing.iter().enumerate() {
        // The point spread is about as wide as the finest axis, so that thick slices blur less.
        let share = (finest / size).clamp(0.0, 1.0) as f32;
        blur(&mut image, shape, axis, 0.25 * share);
        blur(&mut noise, shape, axis, 0.2 * share);
    }
    for (value, noise) in image.iter_mut().zip(noise) {
        *value = (*value + noise).round().clamp(-1024.0, 3071.0);
    }
    let grid = Grid::ras(shape, spacing);
    Ok((
        Volume::new(shaped((1, d, h, w), image)?, grid.clone())?,
        LabelMap::from_vec(labels, grid)?,
    ))
}

/// Roughly normal noise of unit variance: the sum of twelve uniform numbers.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Three-tap blur along an axis, `share` from each neighbour; the edge repeats.
fn blur(values: &mut [f32], shape: [usize; 3], axis: usize, share: f32) {
    let stride: usize = shape[axis + 1..].iter().product();
    let extent = shape[axis];
    for block in values.chunks_mut(stride * extent) {
        for offset in 0..stride {
            let mut before = block[offset];
            for i in 0..extent {
                let at = offset + i * stride;
                let here = block[at];
                let after = if i + 1 < extent { block[at + stride] } else { here };
                block[at] = here + share * (before + after - 2.0 * here);
                before = here;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::morphology::{Connectivity, components};
    use super::*;

    const SHAPE: [usize; 3] = [40, 64, 72];
    const SPACING: [f64; 3] = [5.0, 4.0, 4.0];

    #[test]
    fn the_same_seed_gives_the_same_case() {
        let case = |seed| ct_phantom(seed, SHAPE, SPACING).unwrap();
        assert_eq!(case(4), case(4));
        assert_ne!(case(4), case(5));
    }

    #[test]
    fn every_spleen_is_one_piece_on_the_patients_left_with_tissue_values() {
        for seed in 0..12 {
            let (image, labels) = ct_phantom(seed, SHAPE, SPACING).unwrap();
            let parts = components(&labels, SPLEEN, Connectivity::Face);
            let (image, labels) = (image.as_slice(), labels.as_slice());
            let voxels: usize = parts.sizes.iter().sum();
            let share = voxels as f64 / labels.len() as f64;
            assert!((0.004..0.05).contains(&share), "seed {seed}: share {share}");
            assert!(parts.sizes[0] as f64 > 0.98 * voxels as f64, "{:?}", parts.sizes);
            let inside = |i: &usize| labels[*i] == SPLEEN;
            let mean = |f: &dyn Fn(usize) -> f64| {
                (0..labels.len()).filter(inside).map(f).sum::<f64>() / voxels as f64
            };
            assert!(mean(&|i| (i % SHAPE[2]) as f64) < 0.4 * SHAPE[2] as f64);
            assert!((90.0..140.0).contains(&mean(&|i| f64::from(image[i]))));
            assert!(image.iter().all(|v| (-1024.0..=3071.0).contains(v)));
        }
    }

    #[test]
    fn blurring_keeps_the_sum_and_flat_volumes() {
        let mut values = vec![0.0, 0.0, 4.0, 0.0, 0.0, 0.0];
        blur(&mut values, [1, 1, 6], 2, 0.25);
        assert_eq!(values, [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]);
        let mut flat = vec![3.0; 24];
        (0..3).for_each(|axis| blur(&mut flat, [2, 3, 4], axis, 0.25));
        assert!(flat.iter().all(|v| *v == 3.0));
    }
}
