//! Boxes that a workgroup of `conv_weight_tiled.wgsl` loads, chosen by what they are expected to cost.

use std::fmt::{Display, Formatter};

use super::super::load::ChannelBlocks;
use super::super::reduce::PartWork;
use super::spec::ConvSpec;
use crate::engine::graph::{Caps, Dispatch, Layout};
use crate::engine::shader::KernelKey;

/// Vectors of workgroup memory that every adapter has.
const MEMORY: usize = 1024;

/// Invocations of a workgroup: so many that several workgroups find room beside one another, or as many as there may be.
const THREADS: [[usize; 2]; 2] = [[1, 160], [161, 256]];

/// Parts of all samples at most: one pass sums them.
const MOST_PARTS: usize = 256;

/// What the tiles of a weight gradient depend on.
#[derive(Debug, Clone, Copy)]
pub struct ConvWeightSite {
    pub spec: ConvSpec,
    /// Size of the output.
    pub spatial: [usize; 3],
    pub blocks: ChannelBlocks,
    /// Lanes in use of an input block.
    pub lanes: u32,
}

/// What a workgroup owns and what it loads at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightBoxes {
    /// Output blocks of a thread.
    out: usize,
    /// Threads side by side along output blocks.
    teams: usize,
    /// Input blocks, a thread each.
    ins: usize,
    /// Threads among which the outputs of a box are shared.
    shares: usize,
    /// Planes, lines and runs along W of the outputs of a box.
    size: [usize; 3],
    /// Outputs of a run.
    vox: usize,
    stride: [usize; 3],
    lanes: usize,
}

impl Display for WeightBoxes {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { out, teams, ins, shares, size: [d, h, q], vox, .. } = self;
        write!(f, "boxes OUT={out} TEAMS={teams} INS={ins} SHARES={shares} {d}x{h}x{q}x{vox}")
    }
}

impl WeightBoxes {
    /// Those expected to cost least, of workgroups of each size.
    pub fn all(site: &ConvWeightSite) -> Vec<Self> {
        let ChannelBlocks { ins, outs } = site.blocks;
        // accumulators stay in registers
        let out = outs.min(if site.lanes > 2 { 2 } else { 4 });
        let teams = [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2)];
        let fitting =
            teams.into_iter().filter(|(teams, own)| teams * out < outs + out && *own <= ins);
        let of_team = |(teams, ins)| {
            let least = Self {
                out,
                teams,
                ins,
                shares: 1,
                size: [1; 3],
                vox: 4,
                stride: site.spec.stride,
                lanes: site.lanes as usize,
            };
            least.grown(site.spatial[2])
        };
        let all: Vec<Self> = fitting.flat_map(of_team).collect();
        let best = |[least, most]: &[usize; 2]| {
            let sized = all.iter().filter(|boxes| (*least..=*most).contains(&boxes.threads()));
            sized.min_by_key(|boxes| boxes.cost(site)).copied()
        };
        THREADS.iter().filter_map(best).collect()
    }

    /// Shares and boxes that fill all shares evenly and fit workgroup memory, for lines of `width` outputs.
    fn grown(self, width: usize) -> Vec<Self> {
        let padded = |vox: &usize| width.next_multiple_of(*vox);
        let least = (4..=8).map(|vox| padded(&vox)).min();
        let mut grown = Vec::new();
        for vox in (4..=8).filter(|vox| Some(padded(vox)) == least) {
            for [d, q, shares] in products([5, 3, 5]) {
                let heights = (1..=16).filter(|h| (d * q * h).is_multiple_of(shares + 3));
                let boxes =
                    heights.map(|h| Self { vox, shares: shares + 3, size: [d, h, q], ..self });
                grown.extend(
                    boxes.filter(|boxes| boxes.threads() <= 256 && boxes.memory() <= MEMORY),
                );
            }
        }
        grown
    }

    /// Invocations of a workgroup.
    pub fn threads(&self) -> usize {
        9 * self.teams * self.ins * self.shares
    }

    /// Output blocks of a workgroup.
    fn outs(&self) -> usize {
        self.teams * self.out
    }

    /// Workgroups that one part takes.
    pub fn tiles(&self, ChannelBlocks { ins, outs }: ChannelBlocks) -> usize {
        ins.div_ceil(self.ins) * outs.div_ceil(self.outs())
    }

    /// Outputs of a box.
    fn outer(&self) -> [usize; 3] {
        let [d, h, q] = self.size;
        [d, h, q * self.vox]
    }

    /// Inputs of a box.
    fn inner(&self) -> [usize; 3] {
        let outer = self.outer();
        std::array::from_fn(|axis| (outer[axis] - 1) * self.stride[axis] + 3)
    }

    /// Vectors that a workgroup loads of a box: inputs and gradients.
    fn loads(&self) -> [usize; 2] {
        let count = |size: [usize; 3]| size.into_iter().product::<usize>();
        [self.ins * count(self.inner()), self.outs() * count(self.outer())]
    }

    /// Vectors of workgroup memory, as the shader lays them out.
    fn memory(&self) -> usize {
        let [d, h, w] = self.inner();
        let line = w | 1;
        let plane = h * line + (3 * line + 7 * h * line) % 8;
        let [depth, height, width] = self.outer();
        let grads = self.outs() * depth * height * (width | 1);
        (self.ins * d * plane + grads).max(4 * self.threads())
    }

    /// Boxes of a sample along D, H and W.
    fn boxes(&self, spatial: [usize; 3]) -> [usize; 3] {
        let outer = self.outer();
        std::array::from_fn(|axis| spatial[axis].div_ceil(outer[axis]))
    }

    /// Instructions of all subgroups for a sample, roughly: products, reads from workgroup memory, which cost several, and what is
    /// loaded, normalised and stored there.
    fn cost(&self, site: &ConvWeightSite) -> usize {
        let units = self.size.into_iter().product::<usize>();
        let row = (self.vox - 1) * self.stride[2] + 3;
        let unit = 12 * self.lanes * self.out * self.vox + 6 * (row + self.out * self.vox) + 20;
        let [inputs, grads] = self.loads().map(|count| count.div_ceil(self.threads()));
        let each = units.div_ceil(self.shares) * unit + 45 * inputs + 60 * grads + 100;
        let subgroups = self.threads().div_ceil(32) * self.tiles(site.blocks);
        self.boxes(site.spatial).into_iter().product::<usize>() * subgroups * each
    }

    /// Boxes of a part, and parts of a sample, at most `most`.
    pub fn split(
        &self,
        grad: &Layout,
        blocks: ChannelBlocks,
        most: usize,
        caps: &Caps,
    ) -> [usize; 2] {
        let units = self.boxes(grad.spatial).into_iter().product();
        let threads = self.threads() * self.tiles(blocks) * grad.n;
        PartWork { units, threads, most: most.min(MOST_PARTS / grad.n) }.split(caps)
    }

    /// Sets the tile of a key.
    pub fn key(&self, key: KernelKey) -> KernelKey {
        let [d, h, q] = self.size;
        let [sd, sh, sw] = self.stride;
        let [inputs, grads] = self.loads().map(|count| count.div_ceil(self.threads()));
        let tiles = [
            ("SD", sd),
            ("SH", sh),
            ("SW", sw),
            ("CIN", self.lanes),
            ("OUT", self.out),
            ("TEAMS", self.teams),
            ("INS", self.ins),
            ("SHARES", self.shares),
            ("BD", d),
            ("BH", h),
            ("BQ", q),
            ("VOX", self.vox),
            ("INPUTS", inputs),
            ("GRADS", grads),
        ];
        tiles.into_iter().fold(key, |key, (name, value)| key.tile(name, value as u32))
    }

    /// Sets what the kernel must know of its boxes.
    pub fn params(&self, dispatch: Dispatch, ins: usize, spatial: [usize; 3]) -> Dispatch {
        let [planes, lines, runs] = self.boxes(spatial);
        dispatch
            .param("in_tiles", ins.div_ceil(self.ins))
            .param("boxes", planes * lines * runs)
            .param("lines", lines)
            .param("runs", runs)
    }
}

/// Every choice of three numbers from 1 to those given.
fn products(most: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [a, b, c] = most;
    (1..=a).flat_map(move |x| (1..=b).flat_map(move |y| (1..=c).map(move |z| [x, y, z])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader::validate;

    fn sites() -> Vec<ConvWeightSite> {
        let mut sites = Vec::new();
        for spec in [ConvSpec::same(), ConvSpec::down([2; 3]), ConvSpec::down([1, 2, 2])] {
            for spatial in [[1, 1, 1], [5, 7, 5], [10, 14, 10], [40, 56, 40], [128; 3]] {
                for (ins, outs, lanes) in [(1, 1, 4), (1, 4, 1), (1, 4, 2), (3, 5, 4), (32, 64, 4)]
                {
                    let blocks = ChannelBlocks { ins, outs };
                    sites.push(ConvWeightSite { spec, spatial, blocks, lanes });
                }
            }
        }
        sites
    }

    /// Boxes are valid within the portable limits, and all outputs are in one.
    #[test]
    fn every_shape_has_boxes_that_fit() {
        for site in sites() {
            let all = WeightBoxes::all(&site);
            assert!(!all.is_empty(), "{site:?}");
            for boxes in all {
                validate(&boxes.key(KernelKey::new("conv_weight_tiled.wgsl"))).unwrap();
                let (count, outer) = (boxes.boxes(site.spatial), boxes.outer());
                assert!((0..3).all(|axis| count[axis] * outer[axis] >= site.spatial[axis]));
                assert!(boxes.shares <= 16 && boxes.threads() <= 256);
            }
        }
    }

    #[test]
    fn parts_cover_all_boxes_and_one_pass_sums_them() {
        for site in sites() {
            for boxes in WeightBoxes::all(&site) {
                for (samples, most) in [(1, 1000), (2, 1000), (3, 7), (300, 1)] {
                    let grad = Layout::new(samples, 4 * site.blocks.outs, site.spatial);
                    let [each, parts] = boxes.split(&grad, site.blocks, most, &Caps::default());
                    let all: usize = boxes.boxes(site.spatial).into_iter().product();
                    assert!(each * parts >= all && each * (parts - 1) < all);
                    assert!(parts <= most && (parts == 1 || parts * samples <= MOST_PARTS));
                }
            }
        }
    }
}
