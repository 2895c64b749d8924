//! Where the planes of a segmentation lie: which planes of an image they are, and which it leaves out.

use super::series::cross;
use super::slice::Slice;
use crate::base::{Error, Result};
use crate::imaging::grid::{Grid, dot, length};
use crate::imaging::place::TOLERANCE;

/// Share of a step by which a plane may lie off where steps have it.
const UNEVEN: f64 = 0.1;
/// Planes of an image at most.
const MOST: f64 = 65536.0;

/// How all planes lie: their rows and columns.
pub(super) struct Turn {
    /// Steps along a row and along a column, LPS.
    steps: [[f64; 3]; 2],
    normal: [f64; 3],
    /// Voxels along a row and along a column.
    size: [usize; 2],
}

impl Turn {
    pub fn of(slice: &Slice) -> Result<Self> {
        let (Some([row, column]), Some(spacing)) = (slice.orientation, slice.spacing) else {
            return Err(Error::Internal("a plane without a direction".into()));
        };
        let steps = [row.map(|v| v * spacing[1]), column.map(|v| v * spacing[0])];
        let [rows, columns] = slice.size;
        Ok(Self { steps, normal: cross(row, column), size: [columns, rows] })
    }

    /// Voxels of a plane.
    pub fn voxels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn along(&self, place: [f64; 3]) -> f64 {
        dot(place, self.normal)
    }

    /// Which slices make each plane, the planes along the normal.
    pub fn order(&self, slices: &[Slice]) -> Vec<Vec<usize>> {
        let along = |index: usize| self.along(slices[index].place());
        let mut sorted: Vec<usize> = (0..slices.len()).collect();
        sorted.sort_by(|a, b| along(*a).total_cmp(&along(*b)));
        let mut planes: Vec<Vec<usize>> = Vec::new();
        for index in sorted {
            match planes.last_mut() {
                Some(plane) if along(index) - along(plane[0]) < 1e-3 => plane.push(index),
                _ => planes.push(vec![index]),
            }
        }
        // frames of a plane in the order of the file
        planes.iter_mut().for_each(|plane| plane.sort_unstable());
        planes
    }
}

/// Evenly spaced planes, some of which are there.
pub(super) struct Lattice {
    /// Of the first plane's first voxel, LPS.
    origin: [f64; 3],
    step: [f64; 3],
    count: usize,
    /// Position of each plane that is there, ascending.
    at: Vec<usize>,
}

impl Lattice {
    /// From the first to the last of the planes that are there; none where no step fits them all.
    pub fn of(turn: &Turn, places: &[[f64; 3]], slice: &Slice) -> Option<Self> {
        let (first, last) = (*places.first()?, *places.last()?);
        let ways: Vec<f64> = places.iter().map(|p| turn.along(*p) - turn.along(first)).collect();
        let gaps = ways.windows(2).map(|pair| pair[1] - pair[0]);
        let least = gaps.fold(f64::INFINITY, f64::min);
        let told = [slice.between, Some(least), slice.thickness].into_iter().flatten();
        let edge = told.filter(|edge| *edge > 0.0 && edge.is_finite());
        let mut fits = edge.filter_map(|edge| Some((edge, positions(&ways, edge, UNEVEN)?)));
        let (edge, at) = fits.next().or_else(|| {
            // a single plane that does not say how thick it is
            (places.len() == 1).then(|| (1.0, vec![0]))
        })?;
        let steps = *at.last()?;
        let step = match steps {
            0 => turn.normal.map(|v| v * edge),
            _ => [0, 1, 2].map(|axis| (last[axis] - first[axis]) / steps as f64),
        };
        Self { origin: first, step, count: steps + 1, at }.holding(places)
    }

    /// The planes of another grid; none where those that are there are not some of them.
    pub fn on(turn: &Turn, places: &[[f64; 3]], on: &Grid) -> Option<Self> {
        let (steps, origin) = on.lps();
        let upright = |axis: usize| dot(steps[axis], turn.normal).abs() / length(steps[axis]);
        let axis = (0..3).max_by(|a, b| upright(*a).total_cmp(&upright(*b)))?;
        let (count, pace) = (on.dims[axis], dot(steps[axis], turn.normal));
        let last = (count - 1) as f64;
        // its planes run along our normal or against it
        let begin = turn.along(origin) + if pace < 0.0 { pace * last } else { 0.0 };
        let ways: Vec<f64> = places.iter().map(|place| turn.along(*place) - begin).collect();
        let at = positions(&ways, pace.abs(), TOLERANCE)?;
        if at.last().is_none_or(|last| *last >= count) {
            return None;
        }
        let step = steps[axis].map(|v| if pace < 0.0 { -v } else { v });
        let first = places.first()?;
        let origin = [0, 1, 2].map(|axis| first[axis] - step[axis] * at[0] as f64);
        Self { origin, step, count, at }.holding(places)
    }

    /// The same, unless a plane is shifted against the others.
    fn holding(self, places: &[[f64; 3]]) -> Option<Self> {
        let off = |(place, at): (&[f64; 3], &usize)| {
            let way = |axis: usize| place[axis] - self.origin[axis] - self.step[axis] * *at as f64;
            length([0, 1, 2].map(way))
        };
        let near = places.iter().zip(&self.at).all(|plane| off(plane) <= 0.25 * length(self.step));
        near.then_some(self)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Which of the planes that are there is at a position.
    pub fn plane_at(&self, position: usize) -> Option<usize> {
        self.at.binary_search(&position).ok()
    }

    pub fn grid(&self, turn: &Turn) -> Option<Grid> {
        let [columns, rows] = turn.size;
        let [row, column] = turn.steps;
        Grid::from_lps([columns, rows, self.count], [row, column, self.step], self.origin)
    }
}

/// At which steps of this length the ways lie; none where some lie between them or two at one.
fn positions(ways: &[f64], edge: f64, off: f64) -> Option<Vec<usize>> {
    let mut positions: Vec<usize> = Vec::with_capacity(ways.len());
    for way in ways {
        let place = way / edge;
        let whole = place.round();
        let fits = (place - whole).abs() <= off && (0.0..MOST).contains(&whole);
        if !fits || positions.last().is_some_and(|before| *before >= whole as usize) {
            return None;
        }
        positions.push(whole as usize);
    }
    Some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_though_planes_are_left_out() {
        assert_eq!(positions(&[0.0, 2.5, 7.5], 2.5, UNEVEN), Some(vec![0, 1, 3]));
        assert_eq!(positions(&[0.0, 5.0, 12.5], 5.0, UNEVEN), None);
        assert_eq!(positions(&[0.0, 0.1], 2.5, UNEVEN), None);
        assert_eq!(positions(&[-2.5], 2.5, UNEVEN), None);
        assert_eq!(positions(&[0.0, 1e9], 1.0, UNEVEN), None);
        assert_eq!(positions(&[f64::NAN], 1.0, UNEVEN), None);
    }
}
