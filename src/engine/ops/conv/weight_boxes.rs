//! Boxes that a workgroup of `conv_weight_tiled.wgsl` loads, chosen by what they are expected to cost.

use std::fmt::{Display, Formatter};

use super::super::common::distinct;
use super::super::load::ChannelBlocks;
use super::spec::ConvSpec;
use crate::engine::graph::{Caps, Dispatch, Layout};
use crate::engine::shader::KernelKey;

/// Vectors of workgroup memory that every adapter has.
const MEMORY: usize = 1024;

/// Invocations of a workgroup: so many that several workgroups find room beside one another, or as many as there may be; with two
/// output blocks a thread, or with one, which takes fewer registers and more reads.
const KINDS: [Kind; 3] = [
    Kind { threads: [1, 160], out: 2 },
    Kind { threads: [161, 256], out: 2 },
    Kind { threads: [1, 160], out: 1 },
];

struct Kind {
    threads: [usize; 2],
    out: usize,
}

/// Invocations that run in step.
const SUBGROUP: usize = 32;

/// Parts of all samples at most: one pass sums them.
const MOST_PARTS: usize = 256;

/// Threads for each that keeps the adapter busy: groups that end late cost less where there are many.
const ROUNDS: usize = 6;

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
    /// Outputs of a box: planes, lines, and along W.
    size: [usize; 3],
    stride: [usize; 3],
    lanes: usize,
}

impl Display for WeightBoxes {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { out, teams, ins, shares, size: [d, h, w], .. } = self;
        write!(f, "boxes OUT={out} TEAMS={teams} INS={ins} SHARES={shares} {d}x{h}x{w}")
    }
}

impl WeightBoxes {
    /// Those expected to cost least, of each kind.
    pub fn all(site: &ConvWeightSite) -> Vec<Self> {
        distinct(KINDS.iter().filter_map(|kind| Self::best(site, kind)).collect())
    }

    fn best(site: &ConvWeightSite, kind: &Kind) -> Option<Self> {
        let ChannelBlocks { ins, outs } = site.blocks;
        // what a thread sums up stays in registers
        let out = outs.min(if site.lanes > 2 { kind.out } else { 2 * kind.out });
        let teams = [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2)];
        let fits = |(teams, own): &(usize, usize)| teams * out < outs + out && *own <= ins;
        let least = |(teams, ins)| Self {
            out,
            teams,
            ins,
            shares: 1,
            size: [1; 3],
            stride: site.spec.stride,
            lanes: site.lanes as usize,
        };
        let all =
            teams.into_iter().filter(fits).flat_map(|team| least(team).grown(site.spatial[2]));
        let [fewest, most] = kind.threads;
        let sized = all.filter(|boxes| (fewest..=most).contains(&boxes.threads()));
        sized.min_by_key(|boxes| boxes.cost(site))
    }

    /// Shares and boxes that fill all shares evenly and fit workgroup memory, for lines of `width` outputs.
    fn grown(self, width: usize) -> Vec<Self> {
        let widths = 4..=8;
        let padded = |box_width: &usize| width.next_multiple_of(*box_width);
        let least = widths.clone().map(|box_width| padded(&box_width)).min();
        let mut grown = Vec::new();
        for w in widths.filter(|box_width| Some(padded(box_width)) == least) {
            for (d, shares) in (1..=5usize).flat_map(|d| (4..=8).map(move |shares| (d, shares))) {
                let heights = (1..=16).filter(|h| (d * h).is_multiple_of(shares));
                let boxes = heights.map(|h| Self { shares, size: [d, h, w], ..self });
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

    /// Inputs of a box.
    fn inner(&self) -> [usize; 3] {
        std::array::from_fn(|axis| (self.size[axis] - 1) * self.stride[axis] + 3)
    }

    /// Vectors of a box of one block: inputs and gradients.
    fn loads(&self) -> [usize; 2] {
        [self.inner(), self.size].map(|size| size.into_iter().product())
    }

    /// Vectors of workgroup memory, as the shader lays them out.
    fn memory(&self) -> usize {
        let [d, h, w] = self.inner();
        let plane = h + ((11 - h % 8) % 8).min((13 - h % 8) % 8);
        let line = w | 1;
        let inputs = (self.ins * d * plane).max((2 * self.threads()).div_ceil(line)) * line;
        let [depth, height, width] = self.size;
        inputs + self.outs() * depth * height * (width | 1)
    }

    /// Boxes of a sample along D, H and W.
    fn boxes(&self, spatial: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| spatial[axis].div_ceil(self.size[axis]))
    }

    /// Instructions of all subgroups for a sample, roughly: products, reads from workgroup memory, which is four times slower than
    /// arithmetic and takes several instructions, and what is loaded, normalised and stored there.
    fn cost(&self, site: &ConvWeightSite) -> usize {
        let [d, h, w] = self.size;
        let products = 12 * self.lanes * self.out * w;
        let reads = (w - 1) * self.stride[2] + 3 + self.out * w;
        let line = products.max(16 * reads) + reads + 30;
        let rounds = (d * h).div_ceil(self.shares);
        let [inputs, grads] = self.loads().map(|count| count.div_ceil(SUBGROUP));
        let staged = inputs * (35 + 30 * self.ins) + grads * (35 + 50 * self.outs());
        let each = self.threads().div_ceil(SUBGROUP) * (rounds * line + 60) + staged;
        self.boxes(site.spatial).into_iter().product::<usize>() * self.tiles(site.blocks) * each
    }

    /// Boxes of a part, and parts of a sample, at most `most`.
    pub fn split(
        &self,
        grad: &Layout,
        blocks: ChannelBlocks,
        most: usize,
        caps: &Caps,
    ) -> [usize; 2] {
        let boxes = self.boxes(grad.spatial).into_iter().product::<usize>();
        let wanted = ROUNDS * caps.threads() / (self.threads() * self.tiles(blocks) * grad.n);
        let most = most.min(MOST_PARTS / grad.n).min(boxes).max(1);
        let each = boxes.div_ceil(wanted.clamp(1, most));
        [each, boxes.div_ceil(each)]
    }

    /// Sets the tile of a key.
    pub fn key(&self, key: KernelKey) -> KernelKey {
        let [d, h, w] = self.size;
        let [sd, sh, sw] = self.stride;
        let [inputs, grads] = self.loads().map(|count| count.div_ceil(self.threads()));
        let tiles = [
            ("SD", sd),
            ("SH", sh),
            ("SW", sw),
            ("CIN", self.lanes),
            ("OUT", self.out),
            ("TEAMS", self.teams),
            ("OUTS", self.outs()),
            ("INS", self.ins),
            ("SHARES", self.shares),
            ("BD", d),
            ("BH", h),
            ("VOX", w),
            ("ROW", self.inner()[2]),
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
                let count = boxes.boxes(site.spatial);
                assert!((0..3).all(|axis| count[axis] * boxes.size[axis] >= site.spatial[axis]));
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
