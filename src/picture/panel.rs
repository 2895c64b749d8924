//! One slice of a case as pixels: grey values, with labels outlined and tinted.

use rayon::prelude::*;

use crate::imaging::LabelMap;
use crate::imaging::distance::squared_distances;

/// An anatomical plane. Slices are seen as in a viewer: the head is up in coronal and sagittal ones, the front is up in axial
/// ones and on the left in sagittal ones, and the patient's right is on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Across the body, from foot to head.
    Axial,
    /// From back to front.
    Coronal,
    /// From left to right.
    Sagittal,
}

impl Plane {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// The axis of D, H, W that it goes through, and those that run down and across a slice from their high ends.
    pub(super) fn axes(self) -> [usize; 3] {
        match self {
            Self::Axial => [0, 1, 2],
            Self::Coronal => [1, 0, 2],
            Self::Sagittal => [2, 0, 1],
        }
    }

    /// The letters of the directions: left, right, top, bottom.
    pub(super) fn sides(self) -> [char; 4] {
        match self {
            Self::Axial => ['R', 'L', 'A', 'P'],
            Self::Coronal => ['R', 'L', 'S', 'I'],
            Self::Sagittal => ['A', 'P', 'S', 'I'],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Axial => "Axial",
            Self::Coronal => "Coronal",
            Self::Sagittal => "Sagittal",
        }
    }
}

/// How labels are drawn.
#[derive(Clone, Copy)]
pub(super) struct Ink<'a> {
    pub labels: &'a LabelMap,
    /// Colours of the values from 1 on, over and over.
    pub colours: &'static [[u8; 3]],
    /// Width of outlines in pixels.
    pub line: f64,
    /// How much of the inside is tinted, 0 to 1.
    pub tint: f32,
}

impl Ink<'_> {
    pub fn colour(&self, value: u8) -> [u8; 3] {
        self.colours[(usize::from(value).max(1) - 1) % self.colours.len()]
    }
}

/// What panels may measure, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub height: f64,
    pub width: f64,
    /// Frames are no narrower.
    pub min_width: u32,
}

/// Outlines are found on a grid this much finer than the picture's.
const FINER: usize = 2;

/// A slice, and its size on the picture.
pub(super) struct Panel {
    pub plane: Plane,
    /// Its number, from 0.
    pub slice: usize,
    /// Voxels of the volume, D, H, W.
    pub shape: [usize; 3],
    /// Voxels down and across.
    pub voxels: [usize; 2],
    /// Pixels down and across, which keep the proportions of the body.
    pub size: [u32; 2],
    /// Width of the frame, which may be wider than the picture.
    pub frame_width: u32,
}

impl Panel {
    /// A slice of a volume of so many voxels and mm, D, H, W.
    pub fn new(
        plane: Plane,
        slice: usize,
        shape: [usize; 3],
        spacing: [f64; 3],
        limits: Limits,
    ) -> Self {
        let [_, down, across] = plane.axes();
        let voxels = [shape[down], shape[across]];
        let height = voxels[0] as f64 * spacing[down];
        let width = voxels[1] as f64 * spacing[across];
        let scale = (limits.height / height).min(limits.width / width);
        let size = [height, width].map(|mm| ((mm * scale).round() as u32).max(1));
        let frame_width = size[1].max(limits.min_width);
        Self { plane, slice, shape, voxels, size, frame_width }
    }

    /// Slices along its plane's axis.
    pub fn slices(&self) -> usize {
        self.shape[self.plane.axes()[0]]
    }

    /// Index in the volume of the voxel at a row and column of the picture.
    fn index(&self, row: usize, column: usize) -> usize {
        let ([through, down, across], mut at) = (self.plane.axes(), [0; 3]);
        at[through] = self.slice;
        at[down] = self.voxels[0] - 1 - row;
        at[across] = self.voxels[1] - 1 - column;
        (at[0] * self.shape[1] + at[1]) * self.shape[2] + at[2]
    }

    /// The indices of all voxels, row by row.
    fn indices(&self) -> impl Iterator<Item = usize> {
        let [rows, columns] = self.voxels;
        (0..rows * columns).map(move |i| self.index(i / columns, i % columns))
    }

    /// Pixels of the slice, RGB, row by row: of the intensities (D, H, W) between black and white, and what `inks`
    /// draw over them.
    pub fn pixels(
        &self,
        intensities: &[f32],
        [black, white]: [f32; 2],
        inks: &[Ink<'_>],
    ) -> Vec<[u8; 3]> {
        let grey = self.resample(1, |index| {
            let share = (intensities[index] - black) / (white - black);
            if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
        });
        let mut pixels: Vec<[f32; 3]> = grey.iter().map(|g| [g * 255.0; 3]).collect();
        for ink in inks {
            self.draw(&mut pixels, ink);
        }
        pixels.into_iter().map(|pixel| pixel.map(|tone| tone.round() as u8)).collect()
    }

    fn draw(&self, pixels: &mut [[f32; 3]], ink: &Ink<'_>) {
        let labels = ink.labels.as_slice();
        let mut present = [false; 256];
        self.indices().for_each(|index| present[usize::from(labels[index])] = true);
        let values: Vec<u8> = (1..=255u8).filter(|value| present[usize::from(*value)]).collect();
        let covers: Vec<Vec<f32>> = values
            .par_iter()
            .map(|value| self.cover(ink, |index| labels[index] == *value))
            .collect();
        for (value, cover) in values.into_iter().zip(covers) {
            let colour = ink.colour(value);
            for (pixel, share) in pixels.iter_mut().zip(cover) {
                for (tone, ink) in pixel.iter_mut().zip(colour) {
                    *tone += (f32::from(ink) - *tone) * share;
                }
            }
        }
    }

    /// How much ink each pixel gets, 0 to 1.
    fn cover(&self, ink: &Ink<'_>, inside: impl Fn(usize) -> bool + Copy) -> Vec<f32> {
        let mut cover = self.outline(inside, ink.line);
        if ink.tint > 0.0 {
            let share = self.resample(1, |index| f32::from(u8::from(inside(index))));
            let tinted = share.into_iter().map(|share| if share > 0.5 { ink.tint } else { 0.0 });
            cover.iter_mut().zip(tinted).for_each(|(cover, tint)| *cover = cover.max(tint));
        }
        cover
    }

    /// Bilinear samples of a function of the voxel's index, on a grid `finer` times the picture's pixels.
    fn resample(&self, finer: usize, value: impl Fn(usize) -> f32) -> Vec<f32> {
        let columns = self.voxels[1];
        let voxels: Vec<f32> = self.indices().map(value).collect();
        let [down, across] = [0, 1].map(|k| taps(self.voxels[k], self.size[k] as usize * finer));
        let mut samples = Vec::with_capacity(down.len() * across.len());
        for &(r0, r1, fr) in &down {
            for &(c0, c1, fc) in &across {
                let mix = |r: usize| {
                    let (a, b) = (voxels[r * columns + c0], voxels[r * columns + c1]);
                    a + (b - a) * fc
                };
                let (upper, lower) = (mix(r0), mix(r1));
                samples.push(upper + (lower - upper) * fr);
            }
        }
        samples
    }

    /// How much of each pixel an outline of `width` pixels covers, 0 to 1.
    fn outline(&self, inside: impl Fn(usize) -> bool, width: f64) -> Vec<f32> {
        let [height, columns] = self.size.map(|pixels| pixels as usize * FINER);
        let share = self.resample(FINER, |index| f32::from(u8::from(inside(index))));
        let mask: Vec<bool> = share.iter().map(|s| *s > 0.5).collect();
        let edge: Vec<bool> = (0..mask.len())
            .map(|i| {
                let (row, column) = (i / columns, i % columns);
                mask[i]
                    && ((row > 0 && !mask[i - columns])
                        || (row + 1 < height && !mask[i + columns])
                        || (column > 0 && !mask[i - 1])
                        || (column + 1 < columns && !mask[i + 1]))
            })
            .collect();
        let distance = squared_distances(&edge, [1, height, columns], [1.0; 3]);
        let reach = 0.5 * width * FINER as f64 + 0.5;
        let mut cover = vec![0.0; (self.size[0] * self.size[1]) as usize];
        for (i, squared) in distance.iter().enumerate() {
            let part = (reach - squared.sqrt()).clamp(0.0, 1.0) as f32;
            let pixel = i / columns / FINER * self.size[1] as usize + i % columns / FINER;
            cover[pixel] += part / (FINER * FINER) as f32;
        }
        cover
    }
}

/// For each of `pixels` samples along an axis: the two voxels beside it and the second one's weight.
fn taps(voxels: usize, pixels: usize) -> Vec<(usize, usize, f32)> {
    (0..pixels)
        .map(|pixel| {
            let at = (pixel as f64 + 0.5) * voxels as f64 / pixels as f64 - 0.5;
            let at = at.clamp(0.0, (voxels - 1) as f64);
            let low = at.floor() as usize;
            (low, (low + 1).min(voxels - 1), (at - low as f64) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { height: 440.0, width: 660.0, min_width: 260 };

    #[test]
    fn right_front_and_head_come_first() {
        // RAS: the voxel at the high ends is right, anterior and superior
        let shape = [6, 7, 8];
        let bright = shape.iter().product::<usize>() - 1;
        for plane in Plane::ALL {
            let slice = shape[plane.axes()[0]] - 1;
            let panel = Panel::new(plane, slice, shape, [1.0; 3], LIMITS);
            let grey = panel.resample(1, |index| f32::from(u8::from(index == bright)));
            let brightest = (0..grey.len()).max_by(|a, b| grey[*a].total_cmp(&grey[*b])).unwrap();
            let width = panel.size[1] as usize;
            assert!(brightest / width < panel.size[0] as usize / 4);
            assert!(brightest % width < width / 4);
        }
    }

    #[test]
    fn panels_keep_the_physical_aspect() {
        // 50 x 40 x 20 mm
        let panel = |plane| Panel::new(plane, 0, [10, 20, 40], [5.0, 2.0, 0.5], LIMITS).size;
        assert_eq!(Plane::ALL.map(panel), [[440, 220], [440, 176], [440, 352]]);
    }

    #[test]
    fn outlines_follow_the_border_only() {
        let shape = [1, 20, 20];
        let inside = |i: usize| (5..15).contains(&(i / 20)) && (5..15).contains(&(i % 20));
        let panel = Panel::new(Plane::Axial, 0, shape, [1.0; 3], LIMITS);
        let cover = panel.outline(inside, 2.0);
        let at = |row: usize, column: usize| cover[row * 440 + column];
        assert_eq!((at(220, 220), at(20, 20)), (0.0, 0.0));
        assert!(at(220, 110) > 0.9 && at(110, 220) > 0.9 && at(220, 114) == 0.0);
    }
}
