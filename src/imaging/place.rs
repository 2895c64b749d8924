//! Whether the files of a case show the same places, and how the voxels of one run along those of another.

use std::path::Path;

use super::grid::{Grid, Order, column, directions, dot, length};
use crate::base::{Error, Result};

/// Furthest that a voxel may lie from where the other file has it, as a share of the smaller grid's smallest edge.
pub const TOLERANCE: f64 = 0.25;

/// How the files of a case are matched.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Match {
    /// By the place of voxels in the world, however the files store them.
    #[default]
    ByPlace,
    /// Voxel i, j, k with voxel i, j, k, whatever the affines say.
    ByIndex,
}

/// The grid that decides for a case, and the file that it is of.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Where the voxels lie.
    pub grid: &'a Grid,
    /// The file, for messages.
    pub path: &'a Path,
}

/// How the voxels of a file run along the canonical axes of a reference. Errors where the sizes differ or, by place,
/// where the voxels lie elsewhere.
pub(super) fn order_on(
    grid: &Grid,
    path: &Path,
    on: &Reference<'_>,
    matching: Match,
) -> Result<Order> {
    let own = Order { axes: [0, 1, 2], flips: [false; 3] };
    let found = match matching {
        Match::ByIndex if grid.dims == on.grid.dims => own,
        Match::ByIndex => return Err(other_sizes(grid, path, on)),
        Match::ByPlace => {
            let best = nearest(grid, on.grid, Order::all());
            let Some(best) = best else { return Err(other_shape(grid, path, on)) };
            if distance(grid, on.grid, &best) > tolerance(grid, on.grid) {
                return Err(elsewhere(grid, path, on, &best));
            }
            best
        }
    };
    let canonical = on.grid.order;
    Ok(Order {
        axes: canonical.axes.map(|axis| found.axes[axis]),
        flips: [0, 1, 2].map(|world| canonical.flips[world] != found.flips[canonical.axes[world]]),
    })
}

/// The order that brings the voxels of `grid` nearest to those of `on`, of those under which the sizes are the same.
fn nearest(grid: &Grid, on: &Grid, orders: impl Iterator<Item = Order>) -> Option<Order> {
    let far = |order: &Order| distance(grid, on, order);
    orders
        .filter(|order| order.axes.map(|axis| grid.dims[axis]) == on.dims)
        .reduce(|best, order| if far(&order) < far(&best) { order } else { best })
}

/// Millimetres.
fn tolerance(a: &Grid, b: &Grid) -> f64 {
    let edges = a.spacing().into_iter().chain(b.spacing());
    TOLERANCE * edges.fold(f64::INFINITY, f64::min)
}

fn world(grid: &Grid, index: [f64; 3]) -> [f64; 3] {
    grid.affine.map(|row| dot([row[0], row[1], row[2]], index) + row[3])
}

/// The largest distance in mm between corresponding corners, where `order` gives the axis of `grid` along each of `on`.
fn distance(grid: &Grid, on: &Grid, order: &Order) -> f64 {
    let corner = |bits: usize| {
        let (mut here, mut there) = ([0.0; 3], [0.0; 3]);
        for axis in 0..3 {
            let (end, last) = (bits >> axis & 1 == 1, (on.dims[axis] - 1) as f64);
            there[axis] = if end { last } else { 0.0 };
            here[order.axes[axis]] = if end != order.flips[axis] { last } else { 0.0 };
        }
        let (here, there) = (world(grid, here), world(on, there));
        length([0, 1, 2].map(|row| here[row] - there[row]))
    };
    (0..8).map(corner).fold(0.0, f64::max)
}

fn other_shape(grid: &Grid, path: &Path, on: &Reference<'_>) -> Error {
    Error::file(
        path,
        format!("shape {:?} (D, H, W)", grid.shape()),
        format!("{:?}, that of {}", on.grid.shape(), on.path.display()),
        "Resample one of the files to the other's grid.",
    )
}

fn other_sizes(grid: &Grid, path: &Path, on: &Reference<'_>) -> Error {
    Error::file(
        path,
        format!("{:?} voxels along its axes i, j, k", grid.dims),
        format!("{:?} to match by index, those of {}", on.grid.dims, on.path.display()),
        "Resample one of the files to the other's grid, or leave out `match` by-index if its affine is right.",
    )
}

/// The voxels lie elsewhere: says where, index by index where the sizes allow it, else as a transposed array, since a wrong
/// affine is most often the reason.
fn elsewhere(grid: &Grid, path: &Path, on: &Reference<'_>, best: &Order) -> Error {
    let same_sizes = grid.dims == on.grid.dims;
    let unturned = Order::all().filter(|order| order.flips == [false; 3]);
    let order = match same_sizes {
        true => Order { axes: [0, 1, 2], flips: [false; 3] },
        false => nearest(grid, on.grid, unturned).unwrap_or(*best),
    };
    let (far, least) = (distance(grid, on.grid, &order), distance(grid, on.grid, best));
    let mut found = format!(
        "the same voxels up to {} mm away: {}",
        short(far),
        differences(grid, on.grid, &order)
    );
    if least < far / 2.0 {
        found += &format!(" (with its axes turned to fit, {} mm)", short(least));
    }
    let allowed = short(tolerance(grid, on.grid));
    let places = on.path.display();
    let remedy = if same_sizes {
        "Correct the affine of one of the files, or add `match` by-index if voxel i, j, k is the same place in both."
    } else {
        "Correct the affine of one of the files, or resample it to the other's grid."
    };
    Error::file(
        path,
        found,
        format!("the places of {places}, within {allowed} mm ({TOLERANCE} of a voxel)"),
        remedy,
    )
}

/// Three digits or so.
fn short(mm: f64) -> String {
    match mm.abs() {
        0.0 => "0".into(),
        ..0.001 => format!("{mm:.1e}"),
        ..0.1 => format!("{mm:.4}"),
        ..10.0 => format!("{mm:.2}"),
        _ => format!("{mm:.1}"),
    }
}

/// An edge, exact enough to tell two apart that differ over a whole image.
fn edge(mm: f64) -> String {
    if mm < 0.01 {
        return format!("{mm:.4e}");
    }
    format!("{mm:.4}").trim_end_matches('0').trim_end_matches('.').to_string()
}

/// In which ways `grid` differs from `on`, its axes taken in `order`.
fn differences(grid: &Grid, on: &Grid, order: &Order) -> String {
    // of four kinds that add up to more than the tolerance, one is more than a quarter of it
    let least = tolerance(grid, on) / 4.0;
    let (units, others) = (directions(&on.affine), directions(&grid.affine));
    let taken = [0, 1, 2].map(|axis| {
        let unit = others[order.axes[axis]];
        if order.flips[axis] { unit.map(|v| -v) } else { unit }
    });
    // the axes that run most along those of the reference; its own where several do
    let along = |turn: &Order| {
        (0..3).map(|a| sign(turn.flips[a]) * dot(units[a], taken[turn.axes[a]])).sum::<f64>()
    };
    let own = Order { axes: [0, 1, 2], flips: [false; 3] };
    let turn = Order::all()
        .reduce(|best, turn| if along(&turn) > along(&best) + 1e-6 { turn } else { best })
        .unwrap_or(own);
    let extent = |axis: usize| (on.dims[axis] - 1) as f64 * length(column(&on.affine, axis));
    let mut words = Vec::new();
    if turn.axes != [0, 1, 2] {
        let [i, j, k] = turn.axes.map(|axis| ["i", "j", "k"][axis]);
        words.push(format!("axes permuted (i, j, k run along {i}, {j}, {k})"));
    }
    words.extend(mirrored(on, &turn, &extent));
    words.extend(shifted(grid, on, least));
    let sizes = |grid: &Grid, axis: usize| length(column(&grid.affine, axis));
    let (old, new) =
        ([0, 1, 2].map(|a| sizes(on, a)), [0, 1, 2].map(|a| sizes(grid, order.axes[turn.axes[a]])));
    if (0..3).any(|a| (new[a] / old[a] - 1.0).abs() * extent(a) / 2.0 > least) {
        let list = |sizes: [f64; 3]| sizes.map(edge).join(" x ");
        words.push(format!("other voxel sizes ({} instead of {} mm)", list(new), list(old)));
    }
    let angle = ((along(&turn) - 1.0) / 2.0).clamp(-1.0, 1.0).acos();
    let radius = (0..3).map(|a| extent(a).powi(2)).sum::<f64>().sqrt() / 2.0;
    if angle * radius > least && angle > 1e-4 {
        words.push(format!("rotated by {}°", short(angle.to_degrees())));
    }
    if words.is_empty() { "sheared".into() } else { words.join(", ") }
}

fn sign(flip: bool) -> f64 {
    if flip { -1.0 } else { 1.0 }
}

/// Names the canonical axes of `on` that the other file runs against; of an axis of one voxel that means nothing.
fn mirrored(on: &Grid, turn: &Order, extent: &dyn Fn(usize) -> f64) -> Option<String> {
    let names: Vec<&str> = (0..3)
        .filter(|world| turn.flips[on.order.axes[*world]] && extent(on.order.axes[*world]) > 0.0)
        .map(|world| ["x", "y", "z"][world])
        .collect();
    let (last, first) = names.split_last()?;
    let names =
        if first.is_empty() { (*last).into() } else { format!("{} and {last}", first.join(", ")) };
    Some(format!("mirrored along {names}"))
}

/// The way from the centre of `on` to that of `grid`.
fn shifted(grid: &Grid, on: &Grid, least: f64) -> Option<String> {
    let centre = |grid: &Grid| world(grid, grid.dims.map(|n| (n - 1) as f64 / 2.0));
    let (here, there) = (centre(grid), centre(on));
    let way = [0, 1, 2].map(|row| here[row] - there[row]);
    // what rounds to nothing beside the rest is nothing
    let shown = way.map(|v| if v.abs() < length(way) * 1e-3 { 0.0 } else { v });
    (length(way) > least)
        .then(|| format!("centre shifted by {} mm (x, y, z)", shown.map(short).join(", ")))
}
