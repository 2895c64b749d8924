//! A picture of one case: axial, coronal and sagittal slices with the reference and the prediction outlined.
//!
//! Slices pass through the most foreground. As in a viewer, the head is up in coronal and sagittal slices, the
//! front is up in axial ones and on the left in sagittal ones, and the patient's right is on the left.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::base::canvas::{fill, text, text_width, write_png};
use crate::base::{Error, Result};
use crate::imaging::distance::squared_distances;
use crate::imaging::{LabelMap, Volume};

/// What to draw; all of one shape.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The image, whose first channel is shown.
    pub image: &'a Volume,
    /// The reference, drawn in greens, where there is one.
    pub truth: Option<&'a LabelMap>,
    /// The prediction, drawn in reds and oranges.
    pub prediction: &'a LabelMap,
    /// Intensities shown as black and white; `None` for the 1st and 99th percentile, or for [`SOFT_TISSUE`] where
    /// these percentiles are those of a CT in Hounsfield units.
    pub window: Option<[f32; 2]>,
    /// Text at the lower right, the case's name for one; may be empty.
    pub caption: &'a str,
}

/// The window of abdominal CT, in Hounsfield units.
pub const SOFT_TISSUE: [f32; 2] = [-160.0, 240.0];

const PANEL_HEIGHT: f64 = 440.0;
const PANEL_MAX_WIDTH: f64 = 660.0;
const PANEL_MIN_WIDTH: u32 = 260;
const GAP: u32 = 20;
const HEADER: u32 = 34;
const FOOTER: u32 = 44;
/// Outlines are found on a grid this much finer than the picture's.
const FINER: usize = 2;
const TRUTH_WIDTH: f64 = 4.6;
const PREDICTION_WIDTH: f64 = 2.0;

const PAPER: [u8; 3] = [18, 20, 24];
const FRAME: [u8; 3] = [0, 0, 0];
const INK: [u8; 3] = [228, 232, 238];
const FAINT: [u8; 3] = [150, 158, 170];
const TRUTH: [[u8; 3]; 4] = [[46, 214, 108], [38, 196, 190], [150, 214, 50], [90, 160, 255]];
const PREDICTION: [[u8; 3]; 4] = [[255, 68, 56], [255, 150, 32], [255, 84, 170], [250, 214, 50]];

/// One anatomical plane: its axes in D,H,W, all shown from the high end, and the letters at its sides.
struct Plane {
    name: &'static str,
    through: usize,
    down: usize,
    across: usize,
    /// Left, right, top, bottom.
    sides: [char; 4],
}

const PLANES: [Plane; 3] = [
    Plane { name: "AXIAL", through: 0, down: 1, across: 2, sides: ['R', 'L', 'A', 'P'] },
    Plane { name: "CORONAL", through: 1, down: 0, across: 2, sides: ['R', 'L', 'S', 'I'] },
    Plane { name: "SAGITTAL", through: 2, down: 0, across: 1, sides: ['A', 'P', 'S', 'I'] },
];

/// Where a plane lies in the volume and on the paper.
struct Panel<'a> {
    plane: &'a Plane,
    /// Slice number.
    slice: usize,
    /// Voxels down and across.
    voxels: [usize; 2],
    /// Picture size in pixels, down and across.
    size: [u32; 2],
    /// Width of the frame, which may be wider than the picture.
    frame_width: u32,
}

impl Overlay<'_> {
    /// Voxels along D, H, W.
    fn shape(&self) -> [usize; 3] {
        self.image.shape()
    }

    /// The intensities that are shown, D, H, W.
    fn intensities(&self) -> &[f32] {
        &self.image.as_slice()[..self.prediction.as_slice().len()]
    }

    /// Writes the picture as PNG.
    ///
    /// # Errors
    ///
    /// As those of [`Overlay::draw`], and where the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_png(path.as_ref(), &self.draw()?)
    }

    /// The picture.
    ///
    /// # Errors
    ///
    /// Where a label map has another shape than the image.
    pub fn draw(&self) -> Result<RgbImage> {
        let shape = self.shape();
        let mut labels = self.truth.into_iter().chain([self.prediction]);
        if let Some(other) = labels.find(|labels| labels.shape() != shape) {
            let message =
                format!("labels of {:?} voxels over an image of {shape:?}", other.shape());
            return Err(Error::shape("overlay", message));
        }
        let panels: Vec<Panel> = PLANES.iter().map(|plane| Panel::new(self, plane)).collect();
        let inner = panels.iter().map(|panel| panel.size[0]).max().unwrap_or(1).max(320);
        let width = panels.iter().map(|panel| panel.frame_width + GAP).sum::<u32>() + GAP;
        let mut paper = RgbImage::from_pixel(width, HEADER + inner + FOOTER, Rgb(PAPER));
        let window = window_of(self);
        let mut left = GAP;
        for panel in &panels {
            draw_panel(&mut paper, self, panel, Frame { left, height: inner, window });
            left += panel.frame_width + GAP;
        }
        draw_legend(&mut paper, self, HEADER + inner + (FOOTER - 14) / 2);
        Ok(paper)
    }
}

impl<'a> Panel<'a> {
    fn new(view: &Overlay, plane: &'a Plane) -> Self {
        let (shape, spacing) = (view.shape(), view.image.spacing());
        let voxels = [shape[plane.down], shape[plane.across]];
        let height = voxels[0] as f64 * spacing[plane.down];
        let width = voxels[1] as f64 * spacing[plane.across];
        let scale = (PANEL_HEIGHT / height).min(PANEL_MAX_WIDTH / width);
        let size = [height, width].map(|mm| ((mm * scale).round() as u32).max(1));
        let slice = fullest_slice(view, plane.through);
        Self { plane, slice, voxels, size, frame_width: size[1].max(PANEL_MIN_WIDTH) }
    }

    /// Index in the volume of the voxel at a row and column of the picture.
    fn index(&self, shape: [usize; 3], row: usize, column: usize) -> usize {
        let mut at = [0; 3];
        at[self.plane.through] = self.slice;
        at[self.plane.down] = self.voxels[0] - 1 - row;
        at[self.plane.across] = self.voxels[1] - 1 - column;
        (at[0] * shape[1] + at[1]) * shape[2] + at[2]
    }

    /// Bilinear samples of a function of the voxel index, on a grid `finer` times the picture's pixels.
    fn resample(&self, shape: [usize; 3], finer: usize, value: impl Fn(usize) -> f32) -> Vec<f32> {
        let [rows, columns] = self.voxels;
        let voxels: Vec<f32> = (0..rows * columns)
            .map(|i| value(self.index(shape, i / columns, i % columns)))
            .collect();
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
    fn outline(&self, shape: [usize; 3], inside: impl Fn(usize) -> bool, width: f64) -> Vec<f32> {
        let [height, columns] = self.size.map(|pixels| pixels as usize * FINER);
        let share = self.resample(shape, FINER, |index| f32::from(u8::from(inside(index))));
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

/// The slice along an axis with the most foreground in the reference, or in the prediction where the reference
/// has none; the middle where there is no foreground at all.
fn fullest_slice(view: &Overlay, axis: usize) -> usize {
    let shape = view.shape();
    let stride: usize = shape[axis + 1..].iter().product();
    let fullest = |labels: &LabelMap| {
        let mut counts = vec![0u64; shape[axis]];
        for (index, label) in labels.as_slice().iter().enumerate() {
            counts[index / stride % shape[axis]] += u64::from(*label != 0);
        }
        let most = counts.iter().copied().max().filter(|most| *most > 0)?;
        counts.iter().position(|count| *count == most)
    };
    let found = view.truth.and_then(fullest).or_else(|| fullest(view.prediction));
    found.unwrap_or(shape[axis] / 2)
}

/// The intensities shown as black and white.
fn window_of(view: &Overlay) -> [f32; 2] {
    if let Some(window) = view.window {
        return window;
    }
    let image = view.intensities();
    let mut values: Vec<f32> = image.iter().step_by(image.len() / 1_000_000 + 1).copied().collect();
    values.sort_by(f32::total_cmp);
    let at = |share: f64| values.get((share * (values.len().max(1) - 1) as f64).round() as usize);
    match (at(0.01), at(0.99)) {
        // Air at the low end and bone at the high end: a CT.
        (Some(-1100.0..=-700.0), Some(50.0..=3100.0)) => SOFT_TISSUE,
        (Some(low), Some(high)) if high > low => [*low, *high],
        (Some(low), _) => [*low, values.last().map_or(low + 1.0, |top| top.max(low + 1.0))],
        _ => [0.0, 1.0],
    }
}

/// Place of a panel on the paper, and the intensity window.
struct Frame {
    left: u32,
    height: u32,
    window: [f32; 2],
}

fn draw_panel(paper: &mut RgbImage, view: &Overlay, panel: &Panel, frame: Frame) {
    let [height, width] = panel.size;
    text(paper, panel.plane.name, (frame.left, 10), INK);
    let shape = view.shape();
    let number = format!("{}/{}", panel.slice + 1, shape[panel.plane.through]);
    let right = frame.left + panel.frame_width - text_width(&number);
    text(paper, &number, (right, 10), FAINT);
    fill(paper, (frame.left, HEADER), (panel.frame_width, frame.height), FRAME);
    let left = frame.left + (panel.frame_width - width) / 2;
    let top = HEADER + (frame.height - height) / 2;

    let ([black, white], image) = (frame.window, view.intensities());
    let grey = panel.resample(shape, 1, |index| {
        let share = (image[index] - black) / (white - black);
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    });
    let mut pixels: Vec<[f32; 3]> = grey.iter().map(|g| [g * 255.0; 3]).collect();
    let mut trace = |labels: &LabelMap, colours: &[[u8; 3]; 4], line: f64| {
        let labels = labels.as_slice();
        let mut present = [false; 256];
        for i in 0..panel.voxels[0] * panel.voxels[1] {
            let (row, column) = (i / panel.voxels[1], i % panel.voxels[1]);
            present[usize::from(labels[panel.index(shape, row, column)])] = true;
        }
        for class in (1..=255u8).filter(|class| present[usize::from(*class)]) {
            let colour = colours[(usize::from(class) - 1) % colours.len()];
            let cover = panel.outline(shape, |index| labels[index] == class, line);
            for (pixel, share) in pixels.iter_mut().zip(cover) {
                for (value, ink) in pixel.iter_mut().zip(colour) {
                    *value += (f32::from(ink) - *value) * share;
                }
            }
        }
    };
    if let Some(truth) = view.truth {
        trace(truth, &TRUTH, TRUTH_WIDTH);
    }
    trace(view.prediction, &PREDICTION, PREDICTION_WIDTH);
    for (i, pixel) in pixels.iter().enumerate() {
        let (x, y) = (left + i as u32 % width, top + i as u32 / width);
        paper.put_pixel(x, y, Rgb(pixel.map(|value| value.round() as u8)));
    }
    draw_sides(paper, panel, (frame.left, HEADER), frame.height);
}

/// The letters of the directions, inside the frame.
fn draw_sides(paper: &mut RgbImage, panel: &Panel, (left, top): (u32, u32), height: u32) {
    let (width, middle) = (panel.frame_width, top + height / 2 - 7);
    let centre = left + width / 2 - 5;
    let places = [
        (left + 8, middle),
        (left + width - 18, middle),
        (centre, top + 8),
        (centre, top + height - 22),
    ];
    for (letter, (x, y)) in panel.plane.sides.iter().zip(places) {
        let letter = letter.to_string();
        // A dark edge keeps the letter readable on bright tissue.
        for (dx, dy) in [(0, 1), (2, 1), (1, 0), (1, 2)] {
            text(paper, &letter, (x + dx - 1, y + dy - 1), FRAME);
        }
        text(paper, &letter, (x, y), INK);
    }
}

fn draw_legend(paper: &mut RgbImage, view: &Overlay, y: u32) {
    let classes = |labels: &LabelMap| {
        let mut present = [false; 256];
        labels.as_slice().iter().for_each(|label| present[usize::from(*label)] = true);
        (1..256).filter(|class| present[*class]).collect::<Vec<_>>()
    };
    let mut entries = Vec::new();
    if let Some(truth) = view.truth {
        entries.push(("TRUTH", classes(truth), &TRUTH, 4));
    }
    entries.push(("PREDICTION", classes(view.prediction), &PREDICTION, 2));
    let mut x = GAP;
    for (name, present, colours, thickness) in entries {
        let shown = if present.is_empty() { vec![1] } else { present };
        for class in shown.iter().take(colours.len()) {
            let colour = colours[(class - 1) % colours.len()];
            fill(paper, (x, y + 7 - thickness / 2), (22, thickness), colour);
            x += 26;
        }
        text(paper, name, (x + 4, y), INK);
        x += text_width(name) + 34;
    }
    let length = text_width(view.caption);
    if length > 0 && x + length + GAP <= paper.width() {
        text(paper, view.caption, (paper.width() - GAP - length, y), FAINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Grid;
    use crate::imaging::phantom::ct_phantom;

    fn volume(shape: [usize; 3], spacing: [f64; 3], values: Vec<f32>) -> Volume {
        let [d, h, w] = shape;
        let data = ndarray::Array4::from_shape_vec((1, d, h, w), values).unwrap();
        Volume::new(data, Grid::ras(shape, spacing)).unwrap()
    }

    /// A volume of zeros with one bright voxel, whose label is 1.
    fn single(shape: [usize; 3], spacing: [f64; 3], at: [usize; 3]) -> (Volume, LabelMap) {
        let mut image = vec![0.0; shape.iter().product()];
        let mut labels = vec![0; image.len()];
        let index = (at[0] * shape[1] + at[1]) * shape[2] + at[2];
        (image[index], labels[index]) = (100.0, 1);
        let labels = LabelMap::from_vec(labels, Grid::ras(shape, spacing)).unwrap();
        (volume(shape, spacing, image), labels)
    }

    fn view<'a>(image: &'a Volume, prediction: &'a LabelMap) -> Overlay<'a> {
        Overlay { image, truth: None, prediction, window: None, caption: "" }
    }

    #[test]
    fn right_front_and_head_come_first() {
        // RAS: the voxel at the high ends is right, anterior and superior.
        let shape = [6, 7, 8];
        let (image, labels) = single(shape, [1.0; 3], [5, 6, 7]);
        let view = Overlay { window: Some([0.0, 100.0]), ..view(&image, &labels) };
        for plane in &PLANES {
            let panel = Panel::new(&view, plane);
            let grey = panel.resample(shape, 1, |index| image.as_slice()[index]);
            let brightest = (0..grey.len()).max_by(|a, b| grey[*a].total_cmp(&grey[*b])).unwrap();
            let width = panel.size[1] as usize;
            assert_eq!(panel.slice + 1, shape[plane.through]);
            assert!(
                brightest / width < panel.size[0] as usize / 4 && brightest % width < width / 4
            );
        }
    }

    #[test]
    fn panels_keep_the_physical_aspect() {
        let (image, labels) = single([10, 20, 40], [5.0, 2.0, 0.5], [1, 1, 1]);
        let view = Overlay { truth: Some(&labels), caption: "x", ..view(&image, &labels) };
        // 50 x 40 x 20 mm.
        let sizes = PLANES.each_ref().map(|plane| Panel::new(&view, plane).size);
        assert_eq!(sizes, [[440, 220], [440, 176], [440, 352]]);
        let picture = view.draw().unwrap();
        assert_eq!(picture.height(), 440 + HEADER + FOOTER);
    }

    #[test]
    fn outlines_follow_the_border_only() {
        let shape = [1, 20, 20];
        let square = |i: usize| (5..15).contains(&(i / 20)) && (5..15).contains(&(i % 20));
        let labels: Vec<u8> = (0..400).map(|i| u8::from(square(i))).collect();
        let labels = LabelMap::from_vec(labels, Grid::ras(shape, [1.0; 3])).unwrap();
        let image = volume(shape, [1.0; 3], vec![0.0; 400]);
        let panel = Panel::new(&view(&image, &labels), &PLANES[0]);
        let cover = panel.outline(shape, |index| labels.as_slice()[index] == 1, 2.0);
        let at = |row: usize, column: usize| cover[row * 440 + column];
        assert_eq!((at(220, 220), at(20, 20)), (0.0, 0.0));
        assert!(at(220, 110) > 0.9 && at(110, 220) > 0.9 && at(220, 114) == 0.0);
    }

    #[test]
    fn a_png_is_written_and_wrong_input_refused() {
        let (shape, spacing) = ([12, 24, 24], [10.0, 12.0, 14.0]);
        let (image, labels) = ct_phantom(1, shape, spacing).unwrap();
        let view = Overlay { truth: Some(&labels), caption: "phantom_1", ..view(&image, &labels) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.png");
        view.write(&path).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
        assert!(view.write(folder.path().join("no/such/folder.png")).is_err());
        let (_, other) = single([11, 24, 24], spacing, [0; 3]);
        assert!(Overlay { truth: Some(&other), ..view }.draw().is_err());
        assert!(Overlay { prediction: &other, ..view }.draw().is_err());
    }

    #[test]
    fn windows_are_percentiles_but_for_ct() {
        let (_, labels) = single([10; 3], [1.0; 3], [0; 3]);
        let mr: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let ct: Vec<f32> = (0..1000).map(|i| i as f32 * 1.5 - 1000.0).collect();
        for (values, expected) in [(mr, [10.0, 989.0]), (ct, SOFT_TISSUE)] {
            let image = volume([10; 3], [1.0; 3], values);
            assert_eq!(window_of(&view(&image, &labels)), expected);
        }
    }

    #[test]
    fn flat_and_broken_intensities_have_a_window() {
        for value in [5.0, f32::NAN] {
            let (_, labels) = single([2, 2, 2], [1.0; 3], [0, 0, 0]);
            let image = volume([2, 2, 2], [1.0; 3], vec![value; 8]);
            let view = view(&image, &labels);
            let [low, high] = window_of(&view);
            assert!(high > low);
            view.draw().unwrap();
        }
    }
}
