//! Resampling on the GPU: along single axes by tables, and windows to what the network sees and back.

use crate::base::{Error, Result};
use crate::engine::exec::{Held, Recording, storage, vectors};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::ops::slab::Along;
use crate::imaging::{Interpolation, Tap, resample_cubic};

/// Weights that are less change nothing that f32 holds.
const NOTHING: f32 = 1e-8;

/// What each new row along an axis is made of.
#[derive(Debug, Clone, PartialEq)]
struct Rows {
    firsts: Vec<u32>,
    /// New rows by taps.
    weights: Vec<f32>,
    taps: usize,
}

impl Rows {
    /// Linear, or whatever the taps say.
    fn of_taps(taps: &[Tap], old: usize) -> Self {
        let count = old.min(2);
        let (mut firsts, mut weights) = (Vec::new(), Vec::new());
        for tap in taps {
            // the last row is the second of its pair
            let first = tap.low.min((old - count) as u32);
            let shifted = tap.low > first;
            firsts.push(first);
            let pair = if shifted { [0.0, 1.0] } else { [1.0 - tap.share, tap.share] };
            weights.extend_from_slice(&pair[..count]);
        }
        Self { firsts, weights, taps: count }
    }

    /// The interpolating cubic B-spline, prefilter included: what it makes of each old row alone.
    fn cubic(old: usize, new: usize) -> Self {
        let mut alone = vec![0.0; old * old];
        alone.iter_mut().step_by(old + 1).for_each(|value| *value = 1.0);
        let responses = resample_cubic(&alone, [old, 1, old], [new, 1, old]);
        let counts = |row: &[f32]| {
            let first = row.iter().position(|w| w.abs() > NOTHING).unwrap_or(0);
            let last = row.iter().rposition(|w| w.abs() > NOTHING).unwrap_or(0);
            (first, last + 1 - first)
        };
        let spans: Vec<(usize, usize)> = responses.chunks(old).map(counts).collect();
        let taps = spans.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let firsts = spans.iter().map(|(first, _)| (*first).min(old - taps));
        let firsts: Vec<usize> = firsts.collect();
        let rows = responses.chunks(old).zip(&firsts);
        let weights = rows.flat_map(|(row, first)| row[*first..first + taps].to_vec()).collect();
        Self { firsts: firsts.iter().map(|first| *first as u32).collect(), weights, taps }
    }
}

/// Rows along an axis, in GPU memory.
pub(super) struct Table {
    firsts: wgpu::Buffer,
    weights: wgpu::Buffer,
    old: usize,
    new: usize,
    taps: usize,
}

/// Vectors in memory: a buffer and the first of them.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub first: usize,
}

impl Table {
    fn new(gpu: &Gpu, rows: &Rows, old: usize) -> Result<Self> {
        let firsts = storage(gpu, "rows", 4 * rows.firsts.len() as u64)?;
        gpu.upload(&firsts, 0, bytemuck::cast_slice(&rows.firsts));
        let weights = storage(gpu, "weights of rows", 4 * rows.weights.len() as u64)?;
        gpu.upload(&weights, 0, bytemuck::cast_slice(&rows.weights));
        Ok(Self { firsts, weights, old, new: rows.firsts.len(), taps: rows.taps })
    }

    /// As taps say.
    pub fn of_taps(gpu: &Gpu, taps: &[Tap], old: usize) -> Result<Self> {
        Self::new(gpu, &Rows::of_taps(taps, old), old)
    }

    /// Adds the pass along the axis of `outer` x old x `inner` vectors.
    pub fn record(
        &self,
        recording: &mut Recording<'_>,
        caps: &Caps,
        [outer, inner]: [usize; 2],
        ends: [At<'_>; 2],
    ) -> Result<()> {
        let counts = [self.old, self.new].map(|rows| outer * rows * inner);
        let (src, src_base) = vectors(caps, ends[0].buffer, ends[0].first, counts[0])?;
        let (out, out_base) = vectors(caps, ends[1].buffer, ends[1].first, counts[1])?;
        let Self { old, new, taps, .. } = *self;
        let along = Along { outer, old, new, inner, taps, bases: [src_base, out_base] };
        let named = [
            ("src", src),
            ("firsts", Held::whole(&self.firsts)),
            ("weights", Held::whole(&self.weights)),
            ("out", out),
        ];
        recording.add(along.call(caps)?, named)
    }
}

/// Passes along the axes that change, D first.
struct Passes {
    sizes: [[usize; 3]; 2],
    tables: Vec<(usize, Table)>,
}

impl Passes {
    fn new(
        gpu: &Gpu,
        old: [usize; 3],
        new: [usize; 3],
        rows: fn(usize, usize) -> Rows,
    ) -> Result<Self> {
        let changed = (0..3).filter(|axis| old[*axis] != new[*axis]);
        let table = |axis: usize| {
            let rows = rows(old[axis], new[axis]);
            Ok((axis, Table::new(gpu, &rows, old[axis])?))
        };
        Ok(Self { sizes: [old, new], tables: changed.map(table).collect::<Result<_>>()? })
    }

    /// Vectors of the largest volume on the way.
    fn largest(&self) -> usize {
        let mut now = self.sizes[0];
        let mut most = now.iter().product();
        for (axis, table) in &self.tables {
            now[*axis] = table.new;
            most = now.iter().product::<usize>().max(most);
        }
        most
    }

    /// Adds all passes from one place to another; between them each goes to the spare buffer that it does not read.
    fn record(
        &self,
        recording: &mut Recording<'_>,
        caps: &Caps,
        spare: [&wgpu::Buffer; 2],
        ends: [At<'_>; 2],
    ) -> Result<()> {
        let mut now = self.sizes[0];
        let mut source = ends[0];
        for (place, (axis, table)) in self.tables.iter().enumerate() {
            let free = if source.buffer == spare[0] { spare[1] } else { spare[0] };
            let last = place + 1 == self.tables.len();
            let target = if last { ends[1] } else { At { buffer: free, first: 0 } };
            let outer = now[..*axis].iter().product();
            let inner = now[axis + 1..].iter().product();
            table.record(recording, caps, [outer, inner], [source, target])?;
            now[*axis] = table.new;
            source = target;
        }
        Ok(())
    }
}

/// Windows of a case resized to what the network sees, and its logits back, a block of channels at a time.
pub(super) struct Resizer {
    there: Passes,
    back: Passes,
    spare: [wgpu::Buffer; 3],
}

impl Resizer {
    /// From `crop` voxels to `patch` and back; none where they are as many.
    pub fn new(
        gpu: &Gpu,
        caps: &Caps,
        crop: [usize; 3],
        patch: [usize; 3],
    ) -> Result<Option<Self>> {
        if crop == patch {
            return Ok(None);
        }
        let linear = |old, new| Rows::of_taps(&Tap::all(old, new, Interpolation::Linear), old);
        let there = Passes::new(gpu, crop, patch, Rows::cubic)?;
        let back = Passes::new(gpu, patch, crop, linear)?;
        let bytes = 16 * there.largest().max(back.largest()) as u64;
        if bytes > caps.max_binding {
            let found = format!("windows of {crop:?} voxels take {} MiB a block", bytes >> 20);
            let most = format!("the device binds {} MiB", caps.max_binding >> 20);
            return Err(Error::shape("segment", format!("{found}, {most}; use a coarser spacing")));
        }
        let spare = || storage(gpu, "resized window", bytes);
        Ok(Some(Self { there, back, spare: [spare()?, spare()?, spare()?] }))
    }

    /// Where a window of the case goes before, and its logits after.
    pub fn window(&self) -> At<'_> {
        At { buffer: &self.spare[0], first: 0 }
    }

    /// From [`Resizer::window`] to what the network reads.
    pub fn there(&self, recording: &mut Recording<'_>, caps: &Caps, target: At<'_>) -> Result<()> {
        let spare = [&self.spare[1], &self.spare[2]];
        self.there.record(recording, caps, spare, [self.window(), target])
    }

    /// From what the network made to [`Resizer::window`].
    pub fn back(&self, recording: &mut Recording<'_>, caps: &Caps, source: At<'_>) -> Result<()> {
        let spare = [&self.spare[1], &self.spare[2]];
        self.back.record(recording, caps, spare, [source, self.window()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::resample_linear;

    fn apply(rows: &Rows, data: &[f32]) -> Vec<f32> {
        let each = rows.firsts.iter().zip(rows.weights.chunks(rows.taps));
        each.map(|(first, weights)| {
            let old = data[*first as usize..].iter();
            weights.iter().zip(old).map(|(w, v)| f64::from(w * v)).sum::<f64>() as f32
        })
        .collect()
    }

    #[test]
    fn tables_resample_as_loops_do() {
        let data: Vec<f32> = (0..70).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        for (old, new) in [(1, 1), (1, 4), (2, 5), (9, 9), (9, 20), (20, 9), (70, 64), (31, 70)] {
            let data = &data[..old];
            let cubic = resample_cubic(data, [old, 1, 1], [new, 1, 1]);
            let linear = resample_linear(data, [old, 1, 1], [new, 1, 1]);
            let taps = Tap::all(old, new, Interpolation::Linear);
            for (what, rows, expected, most) in [
                ("cubic", Rows::cubic(old, new), cubic, 2e-6),
                ("linear", Rows::of_taps(&taps, old), linear, 1e-7),
            ] {
                let found = apply(&rows, data);
                let off = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
                let off = off.fold(0.0, f32::max);
                assert!(off <= most, "{what} {old} to {new}: {off}");
                assert!(rows.taps <= 40, "{what} {old} to {new}: {} taps", rows.taps);
            }
        }
    }
}
