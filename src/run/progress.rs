//! The picture of a run: the loss of each domain over the steps.

use std::path::Path;

use image::RgbImage;
use plotters::prelude::*;

use super::folder::{LOG, PROGRESS};
use crate::base::canvas::{text, text_width, write_png};
use crate::base::{Error, Result};

#[derive(serde::Deserialize)]
struct Reading {
    step: u64,
    domain: String,
    loss: f64,
}

/// One domain's readings.
struct Curve {
    name: String,
    points: Vec<(u64, f64)>,
}

impl Curve {
    /// Exponential means, over more readings the more there are.
    fn smooth(&self) -> Vec<(u64, f64)> {
        let weight = 1.0 / (1.0 + self.points.len() as f64 / 20.0);
        let mut mean: Option<f64> = None;
        let smoothed = self.points.iter().map(|(step, loss)| {
            let now = mean.map_or(*loss, |mean| mean + weight * (loss - mean));
            mean = Some(now);
            (*step, now)
        });
        smoothed.collect()
    }
}

const SIZE: (u32, u32) = (960, 540);
const LEFT: u32 = 90;
const RIGHT: u32 = 30;
const TOP: u32 = 30;
const BOTTOM: u32 = 50;
const BACKGROUND: RGBColor = RGBColor(18, 20, 24);
const GRID: RGBColor = RGBColor(48, 52, 60);
const INK: [u8; 3] = [228, 232, 238];
const COLOURS: [[u8; 3]; 6] = [
    [46, 214, 108],
    [255, 150, 32],
    [90, 160, 255],
    [255, 84, 170],
    [250, 214, 50],
    [38, 196, 190],
];

/// Draws what the log of a run holds; nothing where it holds none.
pub(super) fn draw(folder: &Path) -> Result<()> {
    let log = folder.join(LOG);
    let file = std::fs::read_to_string(&log).map_err(|e| Error::io(log, e))?;
    let curves = curves(&file);
    if curves.is_empty() {
        return Ok(());
    }
    write_png(&folder.join(PROGRESS), &picture(&curves)?)
}

fn curves(log: &str) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for line in log.lines() {
        // a loss that is not finite is null there
        let Ok(Reading { step, domain, loss }) = serde_json::from_str(line) else { continue };
        match curves.iter_mut().find(|curve| curve.name == domain) {
            Some(curve) => curve.points.push((step, loss)),
            None => curves.push(Curve { name: domain, points: vec![(step, loss)] }),
        }
    }
    curves
}

/// A word on the picture, its upper left corner at `place`.
struct Label {
    text: String,
    place: (u32, u32),
    colour: [u8; 3],
}

fn picture(curves: &[Curve]) -> Result<RgbImage> {
    let mut pixels = vec![0; 3 * SIZE.0 as usize * SIZE.1 as usize];
    let labels = plot(curves, &mut pixels);
    let labels = labels.map_err(|e| Error::Internal(format!("progress: {e}")))?;
    let canvas = RgbImage::from_raw(SIZE.0, SIZE.1, pixels);
    let mut canvas = canvas.ok_or_else(|| Error::Internal("progress of another size".into()))?;
    for label in labels {
        text(&mut canvas, &label.text, label.place, label.colour);
    }
    Ok(canvas)
}

/// Draws grid and curves, and gives the words around them: fonts differ between systems, the canvas has its own letters.
fn plot(
    curves: &[Curve],
    pixels: &mut [u8],
) -> std::result::Result<Vec<Label>, Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let last = points().map(|(step, _)| *step).max().unwrap_or(1).max(1) as f64;
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(a, b), (_, v)| (a.min(*v), b.max(*v)));
    let room = ((high - low) * 0.05).max(1e-6);
    let (low, high) = (low - room, high + room);
    let area = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
    area.fill(&BACKGROUND)?;
    let mut chart = ChartBuilder::on(&area)
        .margin_left(LEFT)
        .margin_right(RIGHT)
        .margin_top(TOP)
        .margin_bottom(BOTTOM)
        .build_cartesian_2d(0.0..last, low..high)?;
    let mut labels = Vec::new();
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (step, loss) = (share * last, low + share * (high - low));
        chart.draw_series(LineSeries::new([(0.0, loss), (last, loss)], GRID))?;
        chart.draw_series(LineSeries::new([(step, low), (step, high)], GRID))?;
        let (x, y) = chart.backend_coord(&(step, loss));
        let text = format!("{loss:.3}");
        let place = (LEFT - 10 - text_width(&text), y as u32 - 7);
        labels.push(Label { text, place, colour: INK });
        let text = format!("{step:.0}");
        let place = (x as u32 - text_width(&text) / 2, SIZE.1 - BOTTOM + 12);
        labels.push(Label { text, place, colour: INK });
    }
    for (index, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let [r, g, b] = *colour;
        let (ink, smooth) = (RGBColor(r, g, b), curve.smooth());
        let places = |points: &[(u64, f64)]| -> Vec<_> {
            points.iter().map(|(step, loss)| (*step as f64, *loss)).collect()
        };
        let faint = ink.mix(1.0 / 3.0).stroke_width(2);
        chart.draw_series(LineSeries::new(places(&curve.points), faint))?;
        chart.draw_series(LineSeries::new(places(&smooth), ink.stroke_width(2)))?;
        let (_, loss) = smooth.last().copied().unwrap_or_default();
        let text = format!("{} {loss:.3}", curve.name.chars().take(40).collect::<String>());
        let place = (SIZE.0 - RIGHT - 8 - text_width(&text), TOP + 8 + 20 * index as u32);
        labels.push(Label { text, place, colour: *colour });
    }
    area.present()?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domain_has_a_curve_that_falls_as_its_loss_does() {
        let line = |step: u64, domain: &str, loss: f64| {
            format!(r#"{{"step":{step},"domain":"{domain}","loss":{loss},"lr":0.1}}"#)
        };
        let mut log: Vec<String> = Vec::new();
        for step in 1..200 {
            log.push(line(step, ["a", "b"][step as usize % 2], 1.0 / step as f64));
        }
        log.push(r#"{"step":200,"domain":"a","loss":null}"#.into());
        let found = curves(&log.join("\n"));
        assert_eq!(found.iter().map(|c| c.points.len()).collect::<Vec<_>>(), [100, 99]);
        let canvas = picture(&found).unwrap();
        let height = |x: u32, colour: [u8; 3]| {
            (0..SIZE.1).find(|y| canvas.get_pixel(x, *y).0 == colour).unwrap_or_default()
        };
        assert!(height(LEFT + 20, COLOURS[1]) < height(LEFT + 400, COLOURS[1]));
        // one reading, a constant and many names fit as well
        let names: Vec<String> =
            (0..40).map(|i| line(1, &format!("{i}").repeat(90), 2.0)).collect();
        picture(&curves(&names.join("\n"))).unwrap();
        assert!(curves("").is_empty());
    }

    #[test]
    fn the_file_is_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOG), r#"{"step":1,"domain":"a","loss":0.5}"#).unwrap();
        draw(folder.path()).unwrap();
        let image = image::open(folder.path().join(PROGRESS)).unwrap();
        assert_eq!((image.width(), image.height()), SIZE);
    }
}
