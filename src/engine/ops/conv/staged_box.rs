//! What a workgroup stages in its memory for a convolution.

use super::site::{ConvTile, Geometry, Workgroup};
use super::spec::ConvSpec;

/// Bytes of workgroup memory that every adapter has.
pub const MEMORY: usize = 16 << 10;

/// Bytes of a vector of four lanes.
const VECTOR: usize = 16;

/// Banks of workgroup memory in vectors of four lanes, and lanes that read such vectors at a time.
const BANKS: usize = 8;

/// What a workgroup reads and makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedBox {
    /// Positions of what is made, D, H, W: of an input gradient those of one parity of D and H.
    pub made: [usize; 3],
    /// Size of what is read.
    pub read: [usize; 3],
    /// Output blocks.
    pub outs: usize,
    /// Columns of the weights of a plane of taps, and whether they are staged too.
    columns: usize,
    streamed: bool,
    threads: [usize; 3],
    /// Inputs between neighbouring threads.
    steps: [usize; 3],
}

impl StagedBox {
    /// Of a workgroup whose threads make `tile` each.
    pub fn new(geometry: &Geometry, tile: &ConvTile, group: &Workgroup) -> Self {
        let ConvSpec { kernel, stride, .. } = geometry.spec;
        let threads @ [td, th, tw] = group.threads;
        let made = [td, th * tile.lines, tw * tile.vox];
        let row = geometry.row(tile.vox).inputs;
        let [taps_d, taps_h] = geometry.taps();
        let (read, steps) = if geometry.transposed {
            let step = tile.vox / stride[2];
            let read = [made[0] + taps_d - 1, made[1] + taps_h - 1, (tw - 1) * step + row];
            (read, [1, tile.lines, step])
        } else {
            let read = [0, 1, 2].map(|a| (made[a] - 1) * stride[a] + kernel[a]);
            (read, [stride[0], tile.lines * stride[1], tile.vox * stride[2]])
        };
        let columns = taps_h * kernel[2] * 4;
        let outs = group.outs * tile.out;
        Self { made, read, outs, columns, streamed: group.streamed, threads, steps }
    }

    /// Bytes of workgroup memory, roughly: with pitches as they usually come.
    pub fn bytes(&self) -> usize {
        let [_, rows, columns] = self.read;
        self.bytes_of_planes(rows * (columns + 1) + BANKS - 1)
    }

    fn bytes_of_planes(&self, vectors: usize) -> usize {
        let weights = if self.streamed { 0 } else { self.outs * (self.columns + 1) };
        (self.read[0] * vectors + weights) * VECTOR
    }

    /// Vectors of the input that are staged at a time.
    pub fn inputs(&self) -> usize {
        self.read.iter().product()
    }

    /// Vectors of the input that a thread stages at a time.
    pub fn slots(&self, group: &Workgroup) -> usize {
        self.inputs().div_ceil(group.invocations())
    }

    /// Vectors of the weights of a plane of taps.
    pub fn weights(&self) -> usize {
        self.outs * self.columns
    }

    /// Boxes that cover so many positions.
    pub fn count(&self, positions: [usize; 3]) -> usize {
        [0, 1, 2].map(|a| positions[a].div_ceil(self.made[a])).iter().product()
    }

    /// Vectors from row to row and rows from plane to plane, such that all fits and fewest lanes meet in a bank.
    pub fn pitches(&self) -> [usize; 2] {
        let [_, rows, columns] = self.read;
        let all = (0..2).flat_map(|column| (0..2).map(move |row| [columns + column, rows + row]));
        let fit = all.filter(|[pitch, plane]| self.bytes_of_planes(pitch * plane) <= MEMORY);
        let least = fit.min_by_key(|pitches| (self.conflicts(*pitches), *pitches));
        least.unwrap_or([columns, rows])
    }

    /// Times that reads of four batches of neighbouring lanes take, each lane at its own place.
    fn conflicts(&self, [pitch, plane]: [usize; 2]) -> usize {
        let [td, th, tw] = self.threads;
        let place = |lane: usize| {
            let [d, h, w] = [lane / tw % td, lane / (tw * td) % th, lane % tw];
            w * self.steps[2] + (d * self.steps[0] * plane + h * self.steps[1]) * pitch
        };
        let batch = |batch: usize| {
            let mut places: Vec<usize> =
                (0..BANKS).map(|lane| place(batch * BANKS + lane)).collect();
            // lanes that read the same share the read
            places.sort_unstable();
            places.dedup();
            let mut banks = [0; BANKS];
            places.iter().for_each(|place| banks[place % BANKS] += 1);
            banks.into_iter().max().unwrap_or(1)
        };
        (0..4).map(batch).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::site::ConvMethod;
    use super::*;

    #[test]
    fn boxes_have_what_their_threads_read_and_lanes_meet_rarely() {
        let group =
            Workgroup { threads: [4, 4, 2], outs: 2, splits: 1, streamed: false, halves: false };
        let tile = ConvTile { method: ConvMethod::Staged(group), vox: 4, lines: 2, out: 2 };
        let of = |spec, transposed| StagedBox::new(&Geometry { spec, transposed }, &tile, &group);
        let same = of(ConvSpec::same(), false);
        assert_eq!((same.made, same.read), ([4, 8, 8], [6, 10, 10]));
        assert_eq!(of(ConvSpec::same(), true).read, [6, 10, 10]);
        let down = ConvSpec::down([2; 3]);
        assert_eq!(of(down, false).read, [9, 17, 17]);
        // two taps of a parity along D and H; four voxels along W read three gradients
        assert_eq!(of(down, true).read, [5, 9, 5]);
        let [_, rows, columns] = same.read;
        assert!(same.conflicts([columns, rows]) > 4);
        assert_eq!(same.conflicts(same.pitches()), 4);
    }
}
