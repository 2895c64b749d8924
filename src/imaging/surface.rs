//! The surfaces of masks: voxels with a face neighbour outside. They are found row by row, never stored as a volume.

use std::ops::Range;

use rayon::prelude::*;

/// The voxels of a label map that have one of some values.
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    labels: &'a [u8],
    shape: [usize; 3],
    inside: &'a [bool; 256],
    /// The value, where there is only one.
    single: Option<u8>,
    /// What another map must not be where the mask is.
    except: Option<(&'a [u8], u8)>,
}

impl<'a> Mask<'a> {
    /// The voxels (D, H, W, W fastest) whose value `inside` takes.
    pub fn new(labels: &'a [u8], shape: [usize; 3], inside: &'a [bool; 256]) -> Self {
        let mut values = (0..=255u8).filter(|value| inside[usize::from(*value)]);
        let single = values.next().filter(|_| values.next().is_none());
        Self { labels, shape, inside, single, except: None }
    }

    /// Without the voxels where `other` has `value`.
    pub fn except(self, other: &'a [u8], value: u8) -> Self {
        Self { except: Some((other, value)), ..self }
    }

    /// Voxels along D, H, W.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Surface voxels in all.
    pub fn surface_size(&self) -> usize {
        let [d, h, _] = self.shape;
        let plane = |z| self.surface_rows(z, 0..h).map(|(_, places)| places.len()).sum::<usize>();
        (0..d).into_par_iter().map(plane).sum()
    }

    /// Of rows of a plane along D, the places along W of surface voxels. Beyond the volume is outside.
    pub fn surface_rows(
        &self,
        z: usize,
        rows: Range<usize>,
    ) -> impl Iterator<Item = (usize, Vec<usize>)> {
        let mut own = vec![0; self.shape[2]];
        let mut near = own.clone();
        rows.map(move |y| (y, self.surface_row(z, y, &mut own, &mut near)))
    }

    /// `own` and `near` are room for a row each.
    fn surface_row(&self, z: usize, y: usize, own: &mut [u8], near: &mut [u8]) -> Vec<usize> {
        let [d, h, w] = self.shape;
        if !self.touches(z, y) {
            return Vec::new();
        }
        self.fill(z, y, own);
        // 1 where the voxel and all looked at so far are inside
        let mut deep = own.to_vec();
        for (deep, pair) in deep[1..].iter_mut().zip(own.windows(2)) {
            *deep &= pair[0];
        }
        for (deep, right) in deep.iter_mut().zip(&own[1..]) {
            *deep &= right;
        }
        (deep[0], deep[w - 1]) = (0, 0);
        let neighbours = [(y > 0, z, y.wrapping_sub(1)), (y + 1 < h, z, y + 1)];
        let planes = [(z > 0, z.wrapping_sub(1), y), (z + 1 < d, z + 1, y)];
        for (there, z, y) in neighbours.into_iter().chain(planes) {
            if there {
                self.fill(z, y, near);
                deep.iter_mut().zip(&*near).for_each(|(deep, near)| *deep &= near);
            } else {
                deep.fill(0);
            }
        }
        let places = own.iter().zip(&deep).enumerate();
        places.filter(|(_, (own, deep))| own > deep).map(|(x, _)| x).collect()
    }

    fn row(&self, z: usize, y: usize) -> Range<usize> {
        let [_, h, w] = self.shape;
        (z * h + y) * w..(z * h + y + 1) * w
    }

    /// Whether a row may have voxels of the mask.
    fn touches(&self, z: usize, y: usize) -> bool {
        let row = &self.labels[self.row(z, y)];
        match self.single {
            Some(value) => row.contains(&value),
            None => row.iter().any(|label| self.inside[usize::from(*label)]),
        }
    }

    /// 1 for each voxel of a row in the mask, else 0.
    fn fill(&self, z: usize, y: usize, room: &mut [u8]) {
        let row = self.row(z, y);
        let labels = room.iter_mut().zip(&self.labels[row.clone()]);
        match self.single {
            Some(value) => labels.for_each(|(on, label)| *on = u8::from(*label == value)),
            None => labels.for_each(|(on, label)| *on = u8::from(self.inside[usize::from(*label)])),
        }
        if let Some((other, value)) = self.except {
            let others = room.iter_mut().zip(&other[row]);
            others.for_each(|(on, other)| *on &= u8::from(*other != value));
        }
    }
}

/// The surface voxels of a mask by columns along D.
pub struct Columns {
    /// By H.
    rows: Vec<ColumnRow>,
    /// Rows (H) and places along W with a voxel, rising.
    touched: [Vec<usize>; 2],
}

/// The columns of one H.
struct ColumnRow {
    /// Where the column of each W begins in `depths`, and where the last one ends.
    starts: Vec<u32>,
    /// Places along D, rising in each column.
    depths: Vec<u32>,
}

impl Columns {
    /// All surface voxels of a mask.
    pub fn of(mask: &Mask<'_>) -> Self {
        let [_, h, w] = mask.shape;
        let rows: Vec<ColumnRow> = (0..h).into_par_iter().map(|y| ColumnRow::of(mask, y)).collect();
        let touched = (0..h).filter(|y| !rows[*y].depths.is_empty()).collect();
        let any = |x: usize| rows.iter().any(|row| row.starts[x] < row.starts[x + 1]);
        let places = (0..w).filter(|x| any(*x)).collect();
        Self { rows, touched: [touched, places] }
    }

    /// Rows (H) with a surface voxel, rising.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        self.touched[0].iter().copied()
    }

    /// Places along W with a surface voxel, rising.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.touched[1].iter().copied()
    }

    /// Steps along D from a voxel to the nearest one of its column; none where that has none. `seen` is where the voxel before
    /// it along D led, or [`UNSEEN`]: columns are as many as a plane has voxels, and to search each anew takes most of the time.
    pub(super) fn nearest(&self, [z, y, x]: [usize; 3], seen: &mut u32) -> Option<usize> {
        let row = &self.rows[y];
        let column = &row.depths[row.starts[x] as usize..row.starts[x + 1] as usize];
        let mut at = *seen as usize;
        if *seen == UNSEEN {
            at = column.partition_point(|depth| (*depth as usize) < z);
        } else if column.get(at).is_some_and(|depth| (*depth as usize) < z) {
            at += 1;
        }
        *seen = at as u32;
        let after = column.get(at).map(|depth| *depth as usize - z);
        let before = column[..at].last().map(|depth| z - *depth as usize);
        after.into_iter().chain(before).min()
    }
}

/// Of a column that was not searched yet.
pub(super) const UNSEEN: u32 = u32::MAX;

impl ColumnRow {
    fn of(mask: &Mask<'_>, y: usize) -> Self {
        let [d, _, w] = mask.shape;
        let planes = (0..d).flat_map(|z| mask.surface_rows(z, y..y + 1).map(move |row| (z, row.1)));
        let planes: Vec<(usize, Vec<usize>)> =
            planes.filter(|(_, places)| !places.is_empty()).collect();
        let mut starts = vec![0u32; w + 1];
        planes.iter().flat_map(|(_, places)| places).for_each(|x| starts[x + 1] += 1);
        for x in 0..w {
            starts[x + 1] += starts[x];
        }
        let mut next = starts.clone();
        let mut depths = vec![0; starts[w] as usize];
        for (z, places) in planes {
            for x in places {
                depths[next[x] as usize] = z as u32;
                next[x] += 1;
            }
        }
        Self { starts, depths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surface_voxel_has_a_face_neighbour_outside() {
        let shape = [5, 6, 7];
        let mut state = 3u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 % 8
        };
        let labels: Vec<u8> = (0..210).map(|_| noise()).collect();
        let other: Vec<u8> = (0..210).map(|_| noise()).collect();
        let only = |values: &[u8]| std::array::from_fn(|v| values.contains(&(v as u8)));
        for (inside, value) in [(only(&[2]), 9), (only(&[1, 2, 3, 4, 5, 6, 7]), 3)] {
            let mask = Mask::new(&labels, shape, &inside).except(&other, value);
            let on = |[z, y, x]: [usize; 3]| {
                let within = z < 5 && y < 6 && x < 7;
                let i = (z * 6 + y) * 7 + x;
                within && inside[usize::from(labels[i])] && other[i] != value
            };
            let places = (0..210).map(|i| [i / 42, i / 7 % 6, i % 7]);
            let bare = |p: &[usize; 3]| {
                let steps = (0..3).flat_map(|axis| [1, usize::MAX].map(|by| (axis, by)));
                let mut near = steps.map(|(axis, by)| {
                    let mut q = *p;
                    q[axis] = q[axis].wrapping_add(by);
                    q
                });
                on(*p) && near.any(|q| !on(q))
            };
            let expected: Vec<[usize; 3]> = places.filter(bare).collect();
            let rows = (0..5).flat_map(|z| mask.surface_rows(z, 0..6).map(move |row| (z, row)));
            let found: Vec<[usize; 3]> = rows
                .flat_map(|(z, (y, places))| places.into_iter().map(move |x| [z, y, x]))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(mask.surface_size(), expected.len());
            let columns = Columns::of(&mask);
            for (y, x) in (0..42).map(|i| (i / 7, i % 7)) {
                let mut followed = UNSEEN;
                for z in 0..5 {
                    let column = expected.iter().filter(|p| (p[1], p[2]) == (y, x));
                    let nearest = column.map(|p| p[0].abs_diff(z)).min();
                    assert_eq!(columns.nearest([z, y, x], &mut { UNSEEN }), nearest);
                    assert_eq!(columns.nearest([z, y, x], &mut followed), nearest);
                }
            }
        }
    }
}
