//! The picture of a run: loss, pseudo-Dice and learning rate over the steps, a colour a domain.

use std::path::Path;

use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::folder::PROGRESS;
use super::readings::{Curves, Point, read, smooth};
use crate::base::canvas::{text, text_width, write_png};
use crate::base::legend::{Entry, Legend};
use crate::base::{Error, Result};

const WIDTH: u32 = 960;
const LEFT: u32 = 100;
const RIGHT: u32 = 30;
const TOP: u32 = 40;
const BOTTOM: u32 = 30;
/// Below the last panel, for the axis of all.
const FOOT: u32 = 30;
/// Curves of so many readings or fewer have a mark at each, and no mean.
const FEW: usize = 30;
const BACKGROUND: RGBColor = RGBColor(18, 20, 24);
const GRID: RGBColor = RGBColor(48, 52, 60);
const INK: [u8; 3] = [228, 232, 238];
const FAINT: [u8; 3] = [150, 158, 170];
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
    let curves = read(folder)?;
    if curves.iter().all(|curves| curves.loss.is_empty()) {
        return Ok(());
    }
    write_png(&folder.join(PROGRESS), &picture(&curves)?)
}

/// One curve: thin as it was read, thick as its mean; or thick as it was read.
struct Series<'a> {
    points: &'a [Point],
    mean: Option<Vec<Point>>,
    colour: [u8; 3],
}

/// Curves over the steps.
struct Panel<'a> {
    title: &'static str,
    series: Vec<Series<'a>>,
    /// Steps of all panels.
    last: f64,
    range: [f64; 2],
    height: u32,
}

impl<'a> Panel<'a> {
    fn new(title: &'static str, series: Vec<Series<'a>>, last: f64, height: u32) -> Self {
        let points = series.iter().flat_map(|series| series.points);
        let (low, high) =
            points.fold((f64::MAX, f64::MIN), |(a, b), (_, v)| (a.min(*v), b.max(*v)));
        let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
        Self { title, series, last, range: [low - room, high + room], height }
    }

    /// From 0 to 1, which is what its values can be.
    fn of_shares(self) -> Self {
        Self { range: [0.0, 1.0], ..self }
    }
}

/// A curve of each domain that has readings of a kind.
fn series<'a>(
    curves: &'a [Curves],
    get: fn(&Curves) -> &Vec<Point>,
    mean: fn(&Curves) -> Vec<Point>,
) -> Vec<Series<'a>> {
    let coloured = curves.iter().zip(COLOURS.iter().cycle());
    let there = coloured.filter(|(curves, _)| !get(curves).is_empty());
    let series = |(curves, colour): (&'a Curves, &[u8; 3])| {
        let points = get(curves).as_slice();
        let mean = (points.len() > FEW).then(|| mean(curves));
        Series { points, mean, colour: *colour }
    };
    there.map(series).collect()
}

/// The panels that a log has readings for.
fn panels(curves: &[Curves]) -> Vec<Panel<'_>> {
    let last = curves.iter().map(Curves::last_step).fold(1.0, f64::max);
    let loss = series(curves, |c| &c.loss, |c| smooth(&c.loss));
    let mut panels = vec![Panel::new("Loss", loss, last, 380)];
    let dice = series(curves, |c| &c.dice, |c| c.smoothed.clone());
    if !dice.is_empty() {
        panels.push(Panel::new("Pseudo-Dice of held-out patches", dice, last, 260).of_shares());
    }
    let rate = series(curves, |c| &c.rate, |c| c.rate.clone());
    if !rate.is_empty() {
        panels.push(Panel::new("Learning rate", rate, last, 200));
    }
    panels
}

/// A word on the picture, its upper left corner at `place`.
struct Label {
    text: String,
    place: (u32, u32),
    colour: [u8; 3],
}

fn picture(curves: &[Curves]) -> Result<RgbImage> {
    let entries = curves.iter().zip(COLOURS.iter().cycle()).map(|(curves, colour)| {
        let loss = smooth(&curves.loss).last().map_or(f64::NAN, |last| last.1);
        let name: String = curves.name.chars().take(14).collect();
        Entry::new(&format!("{name}: loss {loss:.3}"), *colour, 4)
    });
    let legend = Legend::new(entries.collect(), "", WIDTH - LEFT - RIGHT);
    let panels = panels(curves);
    let head = legend.height() + 16;
    let height = head + panels.iter().map(|panel| panel.height).sum::<u32>() + FOOT;
    let mut pixels = vec![0; 3 * WIDTH as usize * height as usize];
    let labels = plot(&panels, &mut pixels, head, height);
    let labels = labels.map_err(|e| Error::Internal(format!("progress: {e}")))?;
    let canvas = RgbImage::from_raw(WIDTH, height, pixels);
    let mut canvas = canvas.ok_or_else(|| Error::Internal("progress of another size".into()))?;
    for label in labels {
        text(&mut canvas, &label.text, label.place, label.colour);
    }
    legend.draw(&mut canvas, (LEFT, 16), [INK, FAINT]);
    Ok(canvas)
}

type Plotted<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Draws grids and curves, and gives the words around them: fonts differ between systems, the canvas has its own letters.
fn plot(panels: &[Panel<'_>], pixels: &mut [u8], head: u32, height: u32) -> Plotted<Vec<Label>> {
    let area = BitMapBackend::with_buffer(pixels, (WIDTH, height)).into_drawing_area();
    area.fill(&BACKGROUND)?;
    let mut labels = Vec::new();
    let mut top = head;
    for panel in panels {
        let own = area.clone().shrink((0, top), (WIDTH, panel.height));
        labels.extend(plot_panel(panel, &own)?);
        labels.push(Label { text: panel.title.into(), place: (LEFT, top + 12), colour: FAINT });
        top += panel.height;
    }
    let place = (WIDTH - RIGHT - text_width("Step"), top + 8);
    labels.push(Label { text: "Step".into(), place, colour: FAINT });
    area.present()?;
    drop(area);
    Ok(labels)
}

fn plot_panel(
    panel: &Panel<'_>,
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
) -> Plotted<Vec<Label>> {
    let Panel { last, range: [low, high], .. } = *panel;
    let mut chart = ChartBuilder::on(area)
        .margin_left(LEFT)
        .margin_right(RIGHT)
        .margin_top(TOP)
        .margin_bottom(BOTTOM)
        .build_cartesian_2d(0.0..last, low..high)?;
    let mut labels = Vec::new();
    let label = |text: String, place, colour| Label { text, place, colour };
    for (value, text) in ticks(low, high, 5, 0.0) {
        chart.draw_series(LineSeries::new([(0.0, value), (last, value)], GRID))?;
        let (_, y) = chart.backend_coord(&(0.0, value));
        let place = ((LEFT - 10).saturating_sub(text_width(&text)), (y as u32).saturating_sub(7));
        labels.push(label(text, place, INK));
    }
    for (step, text) in ticks(0.0, last, 8, 1.0) {
        chart.draw_series(LineSeries::new([(step, low), (step, high)], GRID))?;
        let (x, y) = chart.backend_coord(&(step, low));
        let left = (x as u32).saturating_sub(text_width(&text) / 2);
        let place = (left.min(WIDTH - 4 - text_width(&text)), y as u32 + 10);
        labels.push(label(text, place, INK));
    }
    for Series { points, mean, colour: [r, g, b] } in &panel.series {
        let ink = RGBColor(*r, *g, *b);
        if let Some(mean) = mean {
            let faint = ink.mix(1.0 / 3.0).stroke_width(1);
            chart.draw_series(LineSeries::new(points.iter().copied(), faint))?;
            chart.draw_series(LineSeries::new(mean.iter().copied(), ink.stroke_width(2)))?;
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied(), ink.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, ink.filled())))?;
        }
    }
    Ok(labels)
}

/// About so many round numbers from low to high, one, two or five tens of some power apart and at least `least`, as people write
/// them.
fn ticks(low: f64, high: f64, about: u32, least: f64) -> Vec<(f64, String)> {
    let raw = ((high - low) / f64::from(about)).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|by| by * power).into_iter().find(|step| *step >= 0.75 * raw);
    let step = step.unwrap_or(10.0 * power).max(least);
    let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let first = (low / step).ceil();
    let values = (0..=2 * about).map(|i| (first + f64::from(i)) * step);
    let told = |value: f64| match value.abs() {
        size if size >= 1e9 || (size > 0.0 && step < 1e-4) => format!("{value:.0e}"),
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        // no minus before a zero
        _ => format!("{:.digits$}", value + 0.0),
    };
    values.take_while(|value| *value <= high + step * 1e-9).map(|v| (v, told(v))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::folder::LOG;
    use super::super::readings::of;
    use super::*;

    fn line(step: u64, domain: &str, loss: f64) -> String {
        format!(r#"{{"step":{step},"domain":"{domain}","loss":{loss},"lr":0.1}}"#)
    }

    #[test]
    fn each_domain_has_a_curve_that_falls_as_its_loss_does() {
        let mut log: Vec<String> = Vec::new();
        for step in 1..200 {
            log.push(line(step, ["a", "b"][step as usize % 2], 1.0 / step as f64));
        }
        log.push(r#"{"step":200,"domain":"a","loss":null}"#.into());
        let found = of(&log.join("\n"));
        assert_eq!(found.iter().map(|c| c.loss.len()).collect::<Vec<_>>(), [100, 99]);
        let canvas = picture(&found).unwrap();
        let height = |x: u32, colour: [u8; 3]| {
            let below = |y: &u32| canvas.get_pixel(x, *y).0 == colour;
            (60..400).find(below).unwrap_or_default()
        };
        assert!(height(LEFT + 20, COLOURS[1]) > 60);
        assert!(height(LEFT + 20, COLOURS[1]) < height(LEFT + 400, COLOURS[1]));
        // one reading, a constant and many names fit as well
        let names: Vec<String> =
            (0..40).map(|i| line(1, &format!("{i}").repeat(90), 2.0)).collect();
        picture(&of(&names.join("\n"))).unwrap();
    }

    #[test]
    fn there_is_a_panel_for_what_the_log_has() {
        let loss = r#"{"step":1,"domain":"a","loss":0.5}"#;
        let rate = line(2, "a", 0.4);
        let dice =
            r#"{"step":2,"domain":"a","validation":{"dice":{"x":0.5},"mean":0.5,"smoothed":0.5}}"#;
        let titles = |lines: &[&str]| {
            let curves = of(&lines.join("\n"));
            panels(&curves).iter().map(|panel| panel.title).collect::<Vec<_>>()
        };
        assert_eq!(titles(&[loss]), ["Loss"]);
        assert_eq!(titles(&[loss, &rate]), ["Loss", "Learning rate"]);
        let all = titles(&[loss, &rate, dice]);
        assert_eq!(all, ["Loss", "Pseudo-Dice of held-out patches", "Learning rate"]);
    }

    #[test]
    fn few_readings_have_marks() {
        let few: Vec<String> = (0..3).map(|i| line(i * 50 + 1, "a", 0.5)).collect();
        let canvas = picture(&of(&few.join("\n"))).unwrap();
        let thick = |x: u32| (60..400).filter(|y| canvas.get_pixel(x, *y).0 == COLOURS[0]).count();
        // steps 51 and 26 of 101
        let at = |step: u32| LEFT + (WIDTH - LEFT - RIGHT) * step / 101;
        assert!(thick(at(51)) >= 7 && thick(at(26)) <= 3, "{} {}", thick(at(51)), thick(at(26)));
    }

    #[test]
    fn ticks_are_round() {
        let told = |low, high, least| {
            ticks(low, high, 5, least).into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(told(-0.013, 1.03, 0.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(told(0.31, 0.42, 0.0), ["0.32", "0.34", "0.36", "0.38", "0.40", "0.42"]);
        assert_eq!(told(0.0, 3.0, 1.0), ["0", "1", "2", "3"]);
        assert_eq!(told(0.0, 1000.0, 1.0), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(told(-0.2, 0.2, 0.0), ["-0.2", "-0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(told(1e-6, 1.1e-5, 0.0)[0], "2e-6");
        assert!(!ticks(5.0 - 1e-9, 5.0 + 1e-9, 5, 0.0).is_empty());
        assert_eq!(told(0.0, 2e6, 1.0)[1], "500000");
        assert_eq!(told(0.0, 2e6, 1.0)[3], "1.50M");
        assert!(ticks(0.0, 1e300, 5, 0.0).len() < 12);
    }

    #[test]
    fn the_file_is_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        draw(folder.path()).unwrap();
        assert!(!folder.path().join(PROGRESS).exists());
        std::fs::write(folder.path().join(LOG), r#"{"step":1,"domain":"a","loss":0.5}"#).unwrap();
        draw(folder.path()).unwrap();
        let image = image::open(folder.path().join(PROGRESS)).unwrap();
        assert_eq!((image.width(), image.height()), (WIDTH, 24 + 16 + 380 + FOOT));
    }
}
