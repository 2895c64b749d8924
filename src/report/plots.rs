//! Plots as SVG that stands in a page. Colours are written as numbers that no plot means, which the style of the page replaces by
//! those of its light or its dark look.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::page::Plot;
use crate::base::{Error, Result};

/// Words and axes.
const INK: RGBColor = RGBColor(0, 0, 1);
/// Lines of the grid.
const GRID: RGBColor = RGBColor(0, 0, 2);
/// Colours that series have, over and over.
pub(super) const COLOURS: usize = 6;

/// The colour of a series by number, from 0.
fn colour(index: usize) -> RGBColor {
    RGBColor(0, 0, 17 + (index % COLOURS) as u8)
}

const FONT: (&str, i32) = ("sans-serif", 13);
const WIDTH: u32 = 560;
const HEIGHT: u32 = 250;
/// Points that a curve is drawn with at most.
const POINTS: usize = 400;
/// Curves of fewer points have a mark at each.
const FEW: usize = 30;

/// A curve over steps.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it is, for the legend; empty for none.
    pub name: String,
    /// Steps and values.
    pub points: Vec<(f64, f64)>,
    /// The number of its colour.
    pub colour: usize,
    /// Whether it is drawn thin and pale, behind what it is the readings of.
    pub faint: bool,
}

type Plotted<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn svg(size: (u32, u32), plot: impl FnOnce(&Area<'_>) -> Plotted<()>) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = plot(&area).and_then(|()| Ok(area.present()?));
    drawn.map_err(|e| Error::Internal(format!("plot: {e}")))?;
    drop(area);
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Curves over the steps of a training; from 0 to 1 where `shares` says so.
///
/// # Errors
///
/// Where the plotter fails, which it does not.
pub fn curves(title: &str, lines: &[Line], shares: bool) -> Result<Plot> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|(step, _)| *step).fold(1.0, f64::max);
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(a, b), (_, v)| (a.min(*v), b.max(*v)));
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let range = if shares || low > high { 0.0..1.0 } else { low - room..high + room };
    let svg = svg((WIDTH, HEIGHT), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last, range)?;
        mesh(&mut chart)
            .x_desc("Step")
            .y_labels(5)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for line in lines {
            let points = thinned(&line.points);
            let ink = colour(line.colour);
            let stroke =
                if line.faint { ink.mix(0.4).stroke_width(1) } else { ink.stroke_width(2) };
            chart.draw_series(LineSeries::new(points.iter().copied(), stroke))?;
            if points.len() <= FEW {
                chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, ink.filled())))?;
            }
        }
        Ok(())
    })?;
    let named = lines.iter().filter(|line| !line.name.is_empty());
    let legend = named.map(|line| (line.colour % COLOURS, line.name.clone())).collect();
    Ok(Plot { title: title.into(), svg, legend })
}

/// A chart of two quantities.
type Quantities<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The grid and the words of a chart.
fn mesh<'a, 'b, 'c>(
    chart: &'c mut Quantities<'a, 'b>,
) -> MeshStyle<'a, 'c, RangedCoordf64, RangedCoordf64, SVGBackend<'b>> {
    let words = FONT.into_font().color(&INK);
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .label_style(words.clone())
        .axis_desc_style(words)
        .x_labels(6);
    mesh
}

/// One quantity over another.
pub(super) struct Chart<'a> {
    pub title: &'a str,
    /// What lies along x and y.
    pub axes: [&'a str; 2],
    /// What x and y span.
    pub ranges: [std::ops::Range<f64>; 2],
    pub lines: &'a [Line],
    /// Whether the points of a line are joined.
    pub joined: bool,
}

/// Draws it, with a mark at each point but of faint lines.
///
/// # Errors
///
/// Where the plotter fails, which it does not.
pub(super) fn chart(of: &Chart<'_>) -> Result<Plot> {
    let [x, y] = of.ranges.clone();
    // several stand side by side, where the words of a wide one would be small
    let svg = svg((3 * WIDTH / 4, WIDTH / 2), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        mesh(&mut chart)
            .x_desc(of.axes[0])
            .y_desc(of.axes[1])
            .y_labels(6)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for line in of.lines {
            let ink = colour(line.colour);
            if of.joined {
                let stroke =
                    if line.faint { ink.mix(0.6).stroke_width(1) } else { ink.stroke_width(2) };
                chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke))?;
            }
            if !line.faint {
                chart.draw_series(line.points.iter().map(|p| Circle::new(*p, 3, ink.filled())))?;
            }
        }
        Ok(())
    })?;
    let named = of.lines.iter().filter(|line| !line.name.is_empty());
    let legend = named.map(|line| (line.colour % COLOURS, line.name.clone())).collect();
    Ok(Plot { title: of.title.into(), svg, legend })
}

/// At most [`POINTS`] points, means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let chunk = points.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(chunk).map(mean).collect()
}

/// A number as a tick has it: no more digits than tell it from its neighbours.
fn short(value: f64) -> String {
    match value.abs() {
        size if size > 0.0 && !(1e-4..1e6).contains(&size) => {
            format!("{value:.1e}").replace(".0e", "e")
        }
        _ => {
            let text = format!("{value:.4}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".into() } else { text.into() }
        }
    }
}

const STRIP: u32 = 30;
const NAMES: u32 = 170;
/// Letters of a name at most.
const LETTERS: usize = 22;

/// The values of each class as points in a row of its own, over the middle half as a box and the median as a line; from 0 to 1
/// where `shares` says so, else from 0 on. Classes without values are left out; none where no class has one.
///
/// # Errors
///
/// Where the plotter fails, which it does not.
pub fn strips(title: &str, classes: &[(String, Vec<f64>)], shares: bool) -> Result<Option<Plot>> {
    let sorted = classes.iter().map(|(name, values)| {
        // what is larger is no measurement, and no axis holds it
        let told = |value: &f64| (0.0..=1e30).contains(value);
        let mut values: Vec<f64> = values.iter().copied().filter(told).collect();
        values.sort_unstable_by(f64::total_cmp);
        (name.as_str(), values)
    });
    let classes: Vec<(&str, Vec<f64>)> = sorted.filter(|(_, values)| !values.is_empty()).collect();
    if classes.is_empty() {
        return Ok(None);
    }
    let most = classes.iter().filter_map(|(_, values)| values.last()).fold(0.0, |a, b| b.max(a));
    let most = if shares { 1.0 } else { (most * 1.05).max(1e-6) };
    let size = (WIDTH, STRIP * classes.len() as u32 + 56);
    let svg = svg(size, |area| plot_strips(area, &classes, most))?;
    Ok(Some(Plot { title: title.into(), svg, legend: Vec::new() }))
}

fn plot_strips(area: &Area<'_>, classes: &[(&str, Vec<f64>)], most: f64) -> Plotted<()> {
    let count = classes.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .margin_left(NAMES)
        .x_label_area_size(32)
        .build_cartesian_2d(0.0..most, 0.0..count)?;
    let words = FONT.into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .label_style(words.clone())
        .x_labels(6)
        .x_label_formatter(&|value| short(*value))
        .draw()?;
    let style = words.pos(Pos::new(HPos::Right, VPos::Center));
    for (index, (name, values)) in classes.iter().enumerate() {
        let (row, ink) = (count - index as f64 - 0.5, colour(index));
        let (_, y) = chart.backend_coord(&(0.0, row));
        let base = area.get_base_pixel();
        area.draw_text(&fitted(name), &style, (NAMES as i32 - 10, y - base.1))?;
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(values, share));
        let half = [(low, row - 0.3), (high, row + 0.3)];
        chart.draw_series([Rectangle::new(half, ink.mix(0.25).filled())])?;
        let median = [(middle, row - 0.3), (middle, row + 0.3)];
        chart.draw_series(LineSeries::new(median, ink.stroke_width(2)))?;
        let points = values.iter().zip(0..).map(|(value, order)| {
            // by turns above and below, so that equal values are seen
            let offset = f64::from(order % 5 - 2) * 0.09;
            Circle::new((*value, row + offset), 3, ink.mix(0.75).filled())
        });
        chart.draw_series(points)?;
    }
    Ok(())
}

/// The value at a share of sorted ones, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

fn fitted(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => format!("{}…", name.chars().take(LETTERS - 1).collect::<String>()),
        false => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_escaped_and_colours_left_to_the_page() {
        let classes = [("<b>\"&".to_string(), vec![0.5, 0.9, f64::NAN]), ("none".into(), vec![])];
        let plot = strips("Dice", &classes, true).unwrap().unwrap();
        assert!(plot.svg.contains("&lt;b&gt;") && !plot.svg.contains("<b>"), "{}", plot.svg);
        assert!(plot.svg.contains("#000011") && !plot.svg.contains(">none<"));
        assert_eq!(plot.svg.matches("<circle").count(), 2);
        assert_eq!(strips("Dice", &classes[1..], true).unwrap(), None);
    }

    #[test]
    fn curves_of_any_length_and_shape_are_drawn() {
        let line =
            |points: Vec<(f64, f64)>| Line { name: "a".into(), points, colour: 7, faint: false };
        let long = line((0..5000).map(|i| (f64::from(i), f64::from(i % 7))).collect());
        let plot = curves("Loss", &[long], false).unwrap();
        assert!(plot.svg.len() < 40_000, "{}", plot.svg.len());
        assert_eq!(plot.legend, [(1, "a".to_string())]);
        for points in [vec![], vec![(1.0, 2.0)], vec![(1.0, 0.0), (2.0, 0.0)], vec![(3.0, 1e-7)]] {
            curves("Loss", &[line(points)], false).unwrap();
        }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!([0.0, 0.5, 0.75].map(|at| quantile(&[1.0, 2.0, 5.0], at)), [1.0, 2.0, 3.5]);
        assert_eq!(
            ["0.0001", "0.25", "-3", "0", "2e7"].map(|t| short(t.parse().unwrap())),
            ["0.0001", "0.25", "-3", "0", "2e7"]
        );
    }
}
