//! Boxes that a workgroup of `conv_weight_tiled.wgsl` loads, chosen by what they are expected to cost.

use std::collections::BTreeSet;
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

/// Lanes of a subgroup, at most.
const SUBGROUP: usize = 64;

/// Banks of workgroup memory in vectors of four lanes.
const BANKS: usize = 8;

/// Rows that a plane of inputs may take more than it has.
const MOST_SPARE: usize = 3;

/// Vectors that a thread loads at once, at most: of a block of inputs, and of one of gradients, which come from two tensors.
const MOST_INPUTS: usize = 6;
const MOST_GRADS: usize = 3;

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
    /// Planes and lines of the outputs of a box.
    size: [usize; 2],
    /// Outputs of a line.
    vox: usize,
    stride: [usize; 3],
    lanes: usize,
}

impl Display for WeightBoxes {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { out, teams, ins, shares, size: [d, h], vox, .. } = self;
        write!(f, "boxes OUT={out} TEAMS={teams} INS={ins} SHARES={shares} {d}x{h}x{vox}")
    }
}

impl WeightBoxes {
    /// Those expected to cost least, of workgroups of each size: small ones first, of which more find room beside one another; with
    /// strides, whose boxes large ones share best, and where subgroups vary in size (AMD, Intel), in the order of what they cost.
    pub fn all(site: &ConvWeightSite, caps: &Caps) -> Vec<Self> {
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
                size: [1; 2],
                vox: 4,
                stride: site.spec.stride,
                lanes: site.lanes as usize,
            };
            least.grown(site.spatial[2])
        };
        let all: Vec<Self> = fitting.flat_map(of_team).collect();
        let best = |[least, most]: &[usize; 2]| {
            let sized = all.iter().filter(|boxes| (*least..=*most).contains(&boxes.threads()));
            sized.min_by_key(|boxes| (boxes.excess(), boxes.cost(site))).copied()
        };
        let mut tiles: Vec<Self> = THREADS.iter().filter_map(best).collect();
        // too many at once only where nothing else fits
        let least = tiles.iter().map(Self::excess).min();
        tiles.retain(|boxes| Some(boxes.excess()) == least);
        if caps.subgroup_size == 0 || site.spec.stride != [1; 3] {
            tiles.sort_by_key(|boxes| boxes.cost(site));
        }
        tiles
    }

    /// Shares and boxes that fill all shares evenly and fit workgroup memory, for lines of `width` outputs.
    fn grown(self, width: usize) -> Vec<Self> {
        let padded = |vox: &usize| width.next_multiple_of(*vox);
        let least = (4..=8).map(|vox| padded(&vox)).min();
        let mut grown = Vec::new();
        for vox in (4..=8).filter(|vox| Some(padded(vox)) == least) {
            for [d, h, shares] in products([8, 16, 5]) {
                let boxes = Self { vox, shares: shares + 3, size: [d, h], ..self };
                let even = (d * h).is_multiple_of(boxes.shares);
                if even && boxes.threads() <= 256 && boxes.fits() {
                    grown.push(boxes);
                }
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
        let [d, h] = self.size;
        [d, h, self.vox]
    }

    /// Inputs of a box.
    fn inner(&self) -> [usize; 3] {
        let outer = self.outer();
        std::array::from_fn(|axis| (outer[axis] - 1) * self.stride[axis] + 3)
    }

    /// Times that all lanes together load inputs of a block: along planes and lines.
    fn input_goes(&self) -> [usize; 2] {
        let [d, h, w] = self.inner();
        let [_, planes, lines] = goes([1, d, h], self.threads() / w);
        [planes, lines]
    }

    /// The same of gradients: along blocks, planes and lines.
    fn grad_goes(&self) -> [usize; 3] {
        let [d, h] = self.size;
        goes([self.outs(), d, h], self.threads() / self.vox)
    }

    /// Rows of a plane of inputs in workgroup memory: so many that the nine taps of a line lie in as many banks as memory leaves room for.
    fn plane(&self) -> usize {
        let [_, h, _] = self.inner();
        let fit = (h..=h + MOST_SPARE).filter(|rows| self.vectors(*rows) <= MEMORY);
        let banks = |rows: &usize| {
            let met: BTreeSet<usize> =
                (0..9).map(|tap| (tap / 3 * rows + tap % 3) % BANKS).collect();
            (BANKS - met.len(), *rows)
        };
        fit.min_by_key(banks).unwrap_or(h)
    }

    /// Whether workgroup memory holds a box, its planes side by side.
    fn fits(&self) -> bool {
        let [_, h, _] = self.inner();
        self.vectors(h) <= MEMORY
    }

    /// Vectors of workgroup memory, as the shader lays them out, for planes of so many rows.
    fn vectors(&self, plane: usize) -> usize {
        let [d, _, w] = self.inner();
        let line = w | 1;
        let grads = self.outs() * self.size.into_iter().product::<usize>();
        let rows = self.ins * d * plane + grads;
        rows.max((4 * self.threads()).div_ceil(line)) * line
    }

    /// Vectors that a thread loads at once beyond those that leave its sums their registers.
    fn excess(&self) -> usize {
        let [planes, lines] = self.input_goes();
        let [_, grad_planes, grad_lines] = self.grad_goes();
        (planes * lines).saturating_sub(MOST_INPUTS)
            + (grad_planes * grad_lines).saturating_sub(MOST_GRADS)
    }

    /// Boxes of a sample along D, H and W.
    fn boxes(&self, spatial: [usize; 3]) -> [usize; 3] {
        let outer = self.outer();
        std::array::from_fn(|axis| spatial[axis].div_ceil(outer[axis]))
    }

    /// Instructions of all subgroups for a sample, roughly: products, reads from workgroup memory, which cost several, and what is
    /// loaded, normalised and stored there; loads cost more than their instructions, since other tiles load the same.
    fn cost(&self, site: &ConvWeightSite) -> usize {
        let units = self.size.into_iter().product::<usize>();
        let row = (self.vox - 1) * self.stride[2] + 3;
        let unit = 8 * self.lanes * self.out * self.vox + 3 * (row + self.out * self.vox) + 20;
        let inputs = self.ins * self.input_goes().into_iter().product::<usize>();
        let [blocks, planes, lines] = self.grad_goes();
        // blocks side by side have coefficients of their own
        let coefficients = if blocks < self.outs() { 40 } else { 5 };
        let grads = blocks * (planes * lines * 90 + coefficients);
        let each = units.div_ceil(self.shares) * unit + 50 * inputs + grads + 100;
        let subgroups = self.threads().div_ceil(SUBGROUP) * self.tiles(site.blocks);
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
        let units: usize = self.boxes(grad.spatial).into_iter().product();
        let threads = self.threads() * self.tiles(blocks) * grad.n;
        let work = PartWork { units, threads, most: most.min(MOST_PARTS / grad.n) };
        let [each, _] = work.split(caps);
        // parts that end together rather than a few more of them
        let even =
            (each..=each + each / 4).min_by_key(|each| (units.next_multiple_of(*each), *each));
        let each = even.unwrap_or(each);
        [each, units.div_ceil(each)]
    }

    /// Sets the tile of a key.
    pub fn key(&self, key: KernelKey) -> KernelKey {
        let [d, h] = self.size;
        let [sd, sh, sw] = self.stride;
        let [input_planes, input_lines] = self.input_goes();
        let [grad_blocks, grad_planes, grad_lines] = self.grad_goes();
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
            ("VOX", self.vox),
            ("INPUT_PLANES", input_planes),
            ("INPUT_LINES", input_lines),
            ("GRAD_BLOCKS", grad_blocks),
            ("GRAD_PLANES", grad_planes),
            ("GRAD_LINES", grad_lines),
            ("PLANE", self.plane()),
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

/// How often rows are loaded, so many side by side, until all are: along each axis, as few times in all as can be.
fn goes(size: [usize; 3], lanes: usize) -> [usize; 3] {
    let [outer, middle, inner] = size;
    let outers = (1..=outer).flat_map(|first| (1..=middle).map(move |second| [first, second]));
    let all = outers.filter_map(|[first, second]| {
        let room = lanes / (outer.div_ceil(first) * middle.div_ceil(second));
        (room > 0).then(|| [first, second, inner.div_ceil(room)])
    });
    // a lane's place among lines is reckoned once where it loads the same line of all planes
    let least = all.min_by_key(|times| (times.iter().product::<usize>(), times[2], times[1]));
    least.unwrap_or(size)
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
            for spatial in [[1, 1, 1], [8, 4, 6], [5, 7, 5], [10, 14, 10], [40, 56, 40], [128; 3]] {
                for (ins, outs, lanes) in
                    [(1, 1, 4), (1, 2, 4), (1, 4, 1), (1, 4, 2), (3, 5, 4), (32, 64, 4)]
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
            let all = WeightBoxes::all(&site, &Caps::default());
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
            for boxes in WeightBoxes::all(&site, &Caps::default()) {
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
