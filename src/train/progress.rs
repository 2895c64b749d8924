//! The picture of a run: the loss of each domain over the steps.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::base::canvas::{fill, line, text, text_width, write_png};
use crate::{Error, Result};

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
const PAPER: [u8; 3] = [18, 20, 24];
const GRID: [u8; 3] = [48, 52, 60];
const INK: [u8; 3] = [228, 232, 238];
const COLOURS: [[u8; 3]; 6] = [
    [46, 214, 108],
    [255, 150, 32],
    [90, 160, 255],
    [255, 84, 170],
    [250, 214, 50],
    [38, 196, 190],
];

/// Draws what a log of losses holds; nothing where it holds none.
pub(super) fn draw(log: &Path, out: &Path) -> Result<()> {
    let file = std::fs::read_to_string(log).map_err(|e| Error::io(log, e))?;
    let curves = curves(&file);
    if curves.is_empty() {
        return Ok(());
    }
    write_png(out, &picture(&curves))
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

fn picture(curves: &[Curve]) -> RgbImage {
    let mut paper = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb(PAPER));
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let last = points().map(|(step, _)| *step).max().unwrap_or(1).max(1);
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(a, b), (_, v)| (a.min(*v), b.max(*v)));
    let room = ((high - low) * 0.05).max(1e-6);
    let (low, high) = (low - room, high + room);
    let (width, height) = (f64::from(SIZE.0 - LEFT - RIGHT), f64::from(SIZE.1 - TOP - BOTTOM));
    let x = |step: f64| f64::from(LEFT) + width * step / last as f64;
    let y = |loss: f64| f64::from(TOP) + height * (high - loss) / (high - low);
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (step, loss) = (share * last as f64, low + share * (high - low));
        fill(&mut paper, (LEFT, y(loss) as u32), (width as u32, 1), GRID);
        fill(&mut paper, (x(step) as u32, TOP), (1, height as u32), GRID);
        let label = format!("{loss:.3}");
        let place = (LEFT - 10 - text_width(&label), y(loss) as u32 - 7);
        text(&mut paper, &label, place, INK);
        let label = format!("{step:.0}");
        let place = (x(step) as u32 - text_width(&label) / 2, SIZE.1 - BOTTOM + 12);
        text(&mut paper, &label, place, INK);
    }
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let faint = [0, 1, 2].map(|i| (u16::from(colour[i]) + 2 * u16::from(PAPER[i])) / 3);
        let faint = faint.map(|v| v as u8);
        for (points, colour) in [(curve.points.clone(), faint), (curve.smooth(), *colour)] {
            let places: Vec<_> = points.iter().map(|(step, v)| (x(*step as f64), y(*v))).collect();
            places.windows(2).for_each(|pair| line(&mut paper, pair[0], pair[1], colour));
        }
    }
    for (index, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (_, loss) = curve.smooth().last().copied().unwrap_or_default();
        let label = format!("{} {loss:.3}", curve.name.chars().take(40).collect::<String>());
        let place = (SIZE.0 - RIGHT - 8 - text_width(&label), TOP + 8 + 20 * index as u32);
        text(&mut paper, &label, place, *colour);
    }
    paper
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
        let paper = picture(&found);
        let height = |x: u32, colour: [u8; 3]| {
            (0..SIZE.1).find(|y| paper.get_pixel(x, *y).0 == colour).unwrap_or_default()
        };
        assert!(height(LEFT + 20, COLOURS[1]) < height(LEFT + 400, COLOURS[1]));
        // one reading, a constant and many names fit as well
        let names: Vec<String> =
            (0..40).map(|i| line(1, &format!("{i}").repeat(90), 2.0)).collect();
        picture(&curves(&names.join("\n")));
        assert!(curves("").is_empty());
    }

    #[test]
    fn the_file_is_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (log, out) = (folder.path().join("log.jsonl"), folder.path().join("progress.png"));
        std::fs::write(&log, r#"{"step":1,"domain":"a","loss":0.5}"#).unwrap();
        draw(&log, &out).unwrap();
        let image = image::open(&out).unwrap();
        assert_eq!((image.width(), image.height()), SIZE);
    }
}
