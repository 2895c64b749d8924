//! A picture of one case: slices of its image, with the reference, the prediction or both outlined.

use std::collections::BTreeMap;
use std::path::Path;

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::panel::{Ink, Limits, Panel, Plane};
use super::{centre, legend, window};
use crate::base::canvas::{fill, text, text_width, write_png};
use crate::base::legend::Legend;
use crate::base::{Error, Result};
use crate::imaging::{LabelMap, Volume};

/// Which slices are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// An axial, a coronal and a sagittal one, which meet in the largest component of the reference's foreground, or of the
    /// prediction's where the reference has none; in the image's centre where there is no foreground at all.
    Planes,
    /// A contact sheet: so many slices of one plane, evenly spread over the foreground, or over the image where there is none.
    Sheet {
        /// The plane.
        plane: Plane,
        /// How many, 1 to [`MAX_SLICES`]; all where there are fewer.
        slices: usize,
    },
}

/// Slices that a contact sheet holds at most.
pub const MAX_SLICES: usize = 200;

/// What to draw; all of one shape. [`Overlay::of`] gives one to fill in.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The image.
    pub image: &'a Volume,
    /// Its channel that is shown, from 0.
    pub channel: usize,
    /// The reference. Beside a prediction it is drawn in greens.
    pub truth: Option<&'a LabelMap>,
    /// The prediction. Beside a reference it is drawn in reds and oranges; alone, each class has its colour.
    pub prediction: Option<&'a LabelMap>,
    /// What the legend calls the values of both.
    pub names: &'a BTreeMap<u8, String>,
    /// Intensities shown as black and white; `None` for the 1st and 99th percentile or, where these are those of a CT in
    /// Hounsfield units, the window of soft tissue, lungs or bone, as what is outlined has it.
    pub window: Option<[f32; 2]>,
    /// Text at the lower right, the case's name for one; may be empty.
    pub caption: &'a str,
    /// Which slices.
    pub layout: Layout,
}

static NO_NAMES: BTreeMap<u8, String> = BTreeMap::new();

const GAP: u32 = 20;
const HEADER: u32 = 34;
/// Above and below the legend.
const MARGIN: u32 = 15;
const PLANES: Limits = Limits { height: 440.0, width: 660.0, min_width: 260 };
const PLANES_HEIGHT: u32 = 320;
const TILES: Limits = Limits { height: 260.0, width: 360.0, min_width: 1 };
const TILES_GAP: u32 = 6;
/// Width to height that a contact sheet comes near to.
const SHEET: f64 = 1.5;

const PAPER: [u8; 3] = [18, 20, 24];
const FRAME: [u8; 3] = [0, 0, 0];
const INK: [u8; 3] = [228, 232, 238];
const FAINT: [u8; 3] = [150, 158, 170];
const TRUTH: [[u8; 3]; 4] = [[46, 214, 108], [38, 196, 190], [150, 214, 50], [90, 160, 255]];
const PREDICTION: [[u8; 3]; 4] = [[255, 68, 56], [255, 150, 32], [255, 84, 170], [250, 214, 50]];
const CLASSES: [[u8; 3]; 10] = [
    [255, 84, 72],
    [64, 200, 96],
    [88, 156, 255],
    [250, 208, 48],
    [48, 204, 204],
    [236, 96, 220],
    [255, 154, 48],
    [166, 216, 66],
    [164, 130, 255],
    [232, 170, 140],
];

/// Panels with their upper left corners, and the size of all, width and height.
struct Arranged {
    panels: Vec<(Panel, (u32, u32))>,
    /// Height of the frames.
    height: u32,
    size: (u32, u32),
}

impl<'a> Overlay<'a> {
    /// An image alone: three planes through its centre.
    pub fn of(image: &'a Volume) -> Self {
        Self {
            image,
            channel: 0,
            truth: None,
            prediction: None,
            names: &NO_NAMES,
            window: None,
            caption: "",
            layout: Layout::Planes,
        }
    }

    /// The intensities that are shown, D, H, W.
    fn intensities(&self) -> &'a [f32] {
        self.image.channels().nth(self.channel).unwrap_or_default()
    }

    /// The labels by which slices are chosen: the reference, or the prediction where that has no foreground.
    fn leading(&self) -> Option<&'a LabelMap> {
        let mut all = self.truth.into_iter().chain(self.prediction);
        all.find(|labels| labels.as_slice().par_iter().any(|label| *label != 0))
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
    /// Where a label map has another shape than the image, the image has no such channel, or a contact sheet has no slices or
    /// too many.
    pub fn draw(&self) -> Result<RgbImage> {
        self.check()?;
        let inks = self.inks();
        let plain: Vec<Ink<'_>> = inks.iter().map(|(_, ink)| *ink).collect();
        let Arranged { panels, height, size } = self.arranged();
        let entries = legend::entries(&inks, self.names);
        let legend = Legend::new(entries, self.caption, size.0 - 2 * GAP);
        let foot = legend.height() + 2 * MARGIN;
        let mut paper = RgbImage::from_pixel(size.0, size.1 + foot, Rgb(PAPER));
        let (window, image) = (self.shown(), self.intensities());
        let pixels: Vec<_> =
            panels.par_iter().map(|(panel, _)| panel.pixels(image, window, &plain)).collect();
        for (index, ((panel, place), pixels)) in panels.iter().zip(pixels).enumerate() {
            let tile = matches!(self.layout, Layout::Sheet { .. });
            fill(&mut paper, *place, (panel.frame_width, height), FRAME);
            put(&mut paper, panel, *place, height, &pixels);
            if !tile || index == 0 {
                draw_sides(&mut paper, panel, *place, height);
            }
            draw_number(&mut paper, panel, *place, height, tile);
        }
        legend.draw(&mut paper, (GAP, size.1 + MARGIN), [INK, FAINT]);
        Ok(paper)
    }

    /// The intensities that are black and white.
    fn shown(&self) -> [f32; 2] {
        self.window.unwrap_or_else(|| window::of(self.intensities(), self.leading()))
    }

    fn check(&self) -> Result<()> {
        let shape = self.image.shape();
        let mut labels = self.truth.into_iter().chain(self.prediction);
        let message = if let Some(other) = labels.find(|labels| labels.shape() != shape) {
            format!("labels of {:?} voxels over an image of {shape:?}", other.shape())
        } else if self.channel >= self.image.channels().len() {
            format!("channel {} of {} (from 0)", self.channel, self.image.channels().len())
        } else if matches!(self.layout, Layout::Sheet { slices, .. } if !(1..=MAX_SLICES).contains(&slices))
        {
            format!("a contact sheet of other than 1 to {MAX_SLICES} slices")
        } else {
            return Ok(());
        };
        Err(Error::shape("overlay", message))
    }

    /// What is drawn, with its role where there are two.
    fn inks(&self) -> Vec<(&'static str, Ink<'a>)> {
        let ink = |labels, colours, line, tint| Ink { labels, colours, line, tint };
        match (self.truth, self.prediction) {
            (Some(truth), Some(prediction)) => vec![
                ("Reference", ink(truth, &TRUTH, 4.6, 0.0)),
                ("Prediction", ink(prediction, &PREDICTION, 2.0, 0.0)),
            ],
            (Some(alone), None) | (None, Some(alone)) => {
                vec![("", ink(alone, &CLASSES, 2.0, 0.25))]
            }
            (None, None) => Vec::new(),
        }
    }

    fn arranged(&self) -> Arranged {
        match self.layout {
            Layout::Planes => self.planes(),
            Layout::Sheet { plane, slices } => self.sheet(plane, slices),
        }
    }

    fn planes(&self) -> Arranged {
        let (shape, spacing) = (self.image.shape(), self.image.spacing());
        let centre = self.leading().and_then(centre::of_largest_component);
        let centre = centre.unwrap_or(shape.map(|voxels| voxels / 2));
        let panels = Plane::ALL
            .map(|plane| Panel::new(plane, centre[plane.axes()[0]], shape, spacing, PLANES));
        let height = panels.iter().map(|panel| panel.size[0]).fold(PLANES_HEIGHT, u32::max);
        let mut left = GAP;
        let panels = panels.map(|panel| {
            let place = (left, HEADER);
            left += panel.frame_width + GAP;
            (panel, place)
        });
        Arranged { panels: panels.into(), height, size: (left, HEADER + height) }
    }

    fn sheet(&self, plane: Plane, slices: usize) -> Arranged {
        let (shape, spacing) = (self.image.shape(), self.image.spacing());
        let through = plane.axes()[0];
        let extent = self.leading().and_then(|labels| centre::extent(labels, through));
        let [low, high] = extent.unwrap_or([0, shape[through]]);
        let count = slices.min(high - low);
        // the middle of each share
        let chosen = (0..count).map(|i| low + (2 * i + 1) * (high - low) / (2 * count));
        // from head to foot, from front to back and from right to left, as slices are seen
        let panels: Vec<Panel> =
            chosen.rev().map(|slice| Panel::new(plane, slice, shape, spacing, TILES)).collect();
        let [height, width] = panels.first().map_or([1, 1], |p| [p.size[0], p.frame_width]);
        let columns = (count as f64 * SHEET * f64::from(height) / f64::from(width)).sqrt();
        let columns = (columns.round() as u32).clamp(1, count.max(1) as u32);
        let rows = (count as u32).div_ceil(columns);
        let place = |index: u32| {
            let (column, row) = (index % columns, index / columns);
            (GAP + column * (width + TILES_GAP), GAP + row * (height + TILES_GAP))
        };
        let panels = panels.into_iter().zip(0..).map(|(panel, index)| (panel, place(index)));
        let across = (columns * (width + TILES_GAP) - TILES_GAP).max(PLANES.min_width);
        let size = (2 * GAP + across, GAP + rows * (height + TILES_GAP) - TILES_GAP);
        Arranged { panels: panels.collect(), height, size }
    }
}

/// Puts a panel's pixels into the middle of its frame.
fn put(
    paper: &mut RgbImage,
    panel: &Panel,
    (left, top): (u32, u32),
    frame_height: u32,
    pixels: &[[u8; 3]],
) {
    let [height, width] = panel.size;
    let left = left + (panel.frame_width - width) / 2;
    let top = top + (frame_height - height) / 2;
    for (pixel, index) in pixels.iter().zip(0..) {
        let (x, y) = (left + index % width, top + index / width);
        paper.put_pixel(x, y, Rgb(*pixel));
    }
}

/// Which slice a panel shows: above its frame, or within where frames are tiles.
fn draw_number(
    paper: &mut RgbImage,
    panel: &Panel,
    (left, top): (u32, u32),
    height: u32,
    tile: bool,
) {
    let number = format!("{}/{}", panel.slice + 1, panel.slices());
    if tile {
        let number = (panel.slice + 1).to_string();
        return edged(paper, &number, (left + 5, (top + height).saturating_sub(19)), INK);
    }
    text(paper, panel.plane.name(), (left, top - 24), INK);
    let right = left + panel.frame_width - text_width(&number);
    text(paper, &number, (right, top - 24), FAINT);
}

/// The letters of the directions, inside the frame.
fn draw_sides(paper: &mut RgbImage, panel: &Panel, (left, top): (u32, u32), height: u32) {
    let (width, middle) = (panel.frame_width, (top + height / 2).saturating_sub(7));
    let centre = (left + width / 2).saturating_sub(5);
    let places = [
        (left + 8, middle),
        ((left + width).saturating_sub(18), middle),
        (centre, top + 8),
        (centre, (top + height).saturating_sub(22)),
    ];
    for (letter, place) in panel.plane.sides().iter().zip(places) {
        edged(paper, &letter.to_string(), place, INK);
    }
}

/// Text with a dark edge, which keeps it readable on bright tissue.
fn edged(paper: &mut RgbImage, words: &str, (x, y): (u32, u32), ink: [u8; 3]) {
    for (dx, dy) in [(0, 1), (2, 1), (1, 0), (1, 2)] {
        text(paper, words, ((x + dx).saturating_sub(1), (y + dy).saturating_sub(1)), FRAME);
    }
    text(paper, words, (x, y), ink);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Grid;
    use crate::imaging::phantom::ct_phantom;
    use crate::picture::SOFT_TISSUE;

    fn volume(shape: [usize; 3], spacing: [f64; 3], values: Vec<f32>) -> Volume {
        let [d, h, w] = shape;
        let channels = values.len() / (d * h * w);
        let data = ndarray::Array4::from_shape_vec((channels, d, h, w), values).unwrap();
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

    fn slices(view: &Overlay<'_>) -> Vec<usize> {
        view.arranged().panels.iter().map(|(panel, _)| panel.slice).collect()
    }

    #[test]
    fn planes_meet_in_the_foreground_or_in_the_middle() {
        let (image, labels) = single([6, 7, 8], [1.0; 3], [5, 0, 2]);
        let (_, elsewhere) = single([6, 7, 8], [1.0; 3], [1, 1, 1]);
        let view = Overlay::of(&image);
        assert_eq!(slices(&view), [3, 3, 4]);
        let both = Overlay { truth: Some(&labels), prediction: Some(&elsewhere), ..view };
        assert_eq!(slices(&both), [5, 0, 2]);
        let nothing = LabelMap::from_vec(vec![0; 336], image.grid().clone()).unwrap();
        assert_eq!(slices(&Overlay { truth: Some(&nothing), ..both }), [1, 1, 1]);
    }

    #[test]
    fn sheets_spread_over_the_foreground_from_head_to_foot() {
        let shape = [40, 8, 8];
        let mut labels = vec![0; 40 * 64];
        labels[10 * 64..30 * 64].fill(3);
        let labels = LabelMap::from_vec(labels, Grid::ras(shape, [1.0; 3])).unwrap();
        let image = volume(shape, [1.0; 3], vec![0.0; 40 * 64]);
        let sheet = |slices| Layout::Sheet { plane: Plane::Axial, slices };
        let view = Overlay { prediction: Some(&labels), layout: sheet(4), ..Overlay::of(&image) };
        assert_eq!(slices(&view), [27, 22, 17, 12]);
        assert_eq!(slices(&Overlay { layout: sheet(100), ..view }).len(), 20);
        assert_eq!(slices(&Overlay { prediction: None, layout: sheet(1), ..view }), [20]);
        assert!(view.draw().unwrap().width() > 2 * 260);
        for wrong in [0, MAX_SLICES + 1] {
            assert!(Overlay { layout: sheet(wrong), ..view }.draw().is_err());
        }
    }

    #[test]
    fn the_chosen_channel_is_shown() {
        let image = volume([2, 2, 2], [1.0; 3], [vec![0.0; 8], vec![50.0; 8]].concat());
        let view = Overlay { window: Some([0.0, 100.0]), ..Overlay::of(&image) };
        let middle = |view: Overlay<'_>| {
            let picture = view.draw().unwrap();
            picture.get_pixel(GAP + 200, HEADER + 200).0
        };
        assert_eq!(middle(view), [0; 3]);
        assert_eq!(middle(Overlay { channel: 1, ..view }), [128; 3]);
        assert!(Overlay { channel: 2, ..view }.draw().is_err());
    }

    #[test]
    fn a_png_is_written_and_wrong_input_refused() {
        let (shape, spacing) = ([12, 24, 24], [10.0, 12.0, 14.0]);
        let (image, labels) = ct_phantom(1, shape, spacing).unwrap();
        let names = BTreeMap::from([(1, "spleen".to_string())]);
        let view = Overlay {
            truth: Some(&labels),
            prediction: Some(&labels),
            names: &names,
            caption: "phantom_1",
            ..Overlay::of(&image)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.png");
        view.write(&path).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
        assert!(view.write(folder.path().join("no/such/folder.png")).is_err());
        let (_, other) = single([11, 24, 24], spacing, [0; 3]);
        assert!(Overlay { truth: Some(&other), ..view }.draw().is_err());
        assert!(Overlay { prediction: Some(&other), ..view }.draw().is_err());
    }

    #[test]
    fn windows_are_percentiles_but_for_ct() {
        let mr: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let ct: Vec<f32> = (0..1000).map(|i| i as f32 * 1.5 - 1000.0).collect();
        let window = |values: &[f32], at: Option<[usize; 3]>| {
            let image = volume([10; 3], [1.0; 3], values.to_vec());
            let labels = at.map(|at| single([10; 3], [1.0; 3], at).1);
            Overlay { truth: labels.as_ref(), ..Overlay::of(&image) }.shown()
        };
        let [low, high] = window(&mr, None);
        assert!((low - 9.99).abs() < 1e-3 && (high - 989.01).abs() < 1e-3);
        // what is outlined is soft tissue, air and bone in turn
        assert_eq!(window(&ct, None), SOFT_TISSUE);
        assert_eq!(window(&ct, Some([7, 0, 0])), SOFT_TISSUE);
        assert_eq!(window(&ct, Some([1, 0, 0])), [-1350.0, 150.0]);
        assert_eq!(window(&ct, Some([9, 5, 0])), [-500.0, 1300.0]);
    }

    #[test]
    fn flat_and_broken_intensities_have_a_window() {
        for value in [5.0, f32::NAN] {
            let image = volume([2, 2, 2], [1.0; 3], vec![value; 8]);
            let view = Overlay::of(&image);
            let [low, high] = view.shown();
            assert!(high > low);
            view.draw().unwrap();
        }
    }
}
