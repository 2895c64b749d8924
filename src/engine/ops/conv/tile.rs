//! Tiles of the convolutions with taps: candidates for a shape on an adapter, the default first.

use std::sync::Arc;

use super::super::common::{distinct, switches};
use super::super::load::ChannelBlocks;
use super::super::subgroup::sharing;
use super::coop::cooperative_tiles;
use super::pick::staged_tiles;
use super::site::{ConvMethod, ConvSite, ConvTile, Geometry, Workgroup};
use super::spec::ConvSpec;
use crate::base::Result;
use crate::engine::graph::{Caps, DType, Dispatch, Lowering, Portion, Scratch, fold};
use crate::engine::shader::{Choice, KernelKey};

/// A kernel about to run on a piece of the work.
pub struct ConvCall<'a> {
    pub lowering: &'a Lowering<'a>,
    pub piece: &'a Portion<2>,
    pub label: String,
    /// The kernel with the switches of the site.
    pub key: KernelKey,
    pub tile: ConvTile,
}

impl ConvCall<'_> {
    /// Output tiles of a piece.
    pub fn tiles(&self) -> usize {
        self.piece.runs[0].count.div_ceil(self.tile.out)
    }

    /// The dispatch of so many workgroups; `quads` tiles lie along W.
    pub fn dispatch(self, groups: usize, quads: usize) -> Result<Dispatch> {
        let tiles = self.tiles();
        let groups = fold(groups, self.lowering.caps)?;
        Ok(Dispatch::new(self.label, self.key, groups).param("tiles", tiles).param("quads", quads))
    }
}

/// Working memory of convolutions at sites of a node, one after another: what parts of their input blocks make.
pub fn working_memory(
    lowering: &Lowering<'_>,
    sites: &[(ConvSite, KernelKey)],
) -> Result<Vec<Scratch>> {
    let mut most = None;
    for (site, key) in sites {
        let splits = site.choose(&switches(key), lowering)?.0.splits();
        if splits > 1 {
            most = most.max(Some(site.partial(splits).words()));
        }
    }
    let [out] = lowering.outputs()?;
    let parts = |words| Scratch::new(format!("{}.parts", lowering.name(out)), words);
    Ok(most.map(parts).into_iter().collect())
}

/// Threads that fill a GPU, and those that do where all read the same weights by scalar registers: fewer, since they wait for less.
const FILLED: usize = 98_304;
const FILLED_BY_SCALARS: usize = 7168;

/// Threads of four output blocks below which those of two, twice as many, wait less than they load more.
const FEW: usize = 10_240;

/// Threads below which those that walk over all inputs by themselves take several times as long as staged tiles, so that timing them
/// would be a waste: the kernel gate's model finds none hopeless above.
const LEAST_DIRECT: usize = 8192;

/// Output blocks that one thread keeps in registers.
pub fn out_tile(outs: usize) -> usize {
    outs.min(4)
}

impl ConvSite {
    /// The tile for what rides on the loads.
    pub fn choose(
        &self,
        switches: &str,
        lowering: &Lowering<'_>,
    ) -> Result<(ConvTile, Arc<Choice>)> {
        let family = if self.geometry.transposed { "conv-input" } else { "conv" };
        let Self { samples, spatial: [d, h, w], blocks: ChannelBlocks { ins, outs }, .. } = self;
        let ConvSpec { kernel: [_, _, kw], stride: [_, _, sw], .. } = self.geometry.spec;
        let shape = format!("{samples}x{d}x{h}x{w} {ins}>{outs} KW{kw} SW{sw}{switches}");
        lowering.choose(family, shape, &self.tiles(lowering.caps, lowering.dtype))
    }

    /// Tiles for tensors of this type, the default first: those in halves and by cooperative matrices last, so that only tuning takes
    /// them.
    pub fn tiles(&self, caps: &Caps, dtype: DType) -> Vec<ConvTile> {
        let mut tiles = self.candidates(caps);
        let halves = self.halves(&tiles, caps, dtype);
        if !halves.is_empty() {
            // beside what is faster than in f32 more threads are too few
            let first = tiles[0];
            let alone = |tile: &ConvTile| tile.method == ConvMethod::Direct && *tile != first;
            tiles.retain(|tile| !alone(tile) || self.direct_threads(tile) >= 2 * LEAST_DIRECT);
        }
        [tiles, halves, cooperative_tiles(self, caps, dtype)].concat()
    }

    /// Staged tiles whose factors are rounded to f16, which only tensors are that are stored so. What a first layer reads is not: an image may
    /// hold what f16 does not.
    fn halves(&self, tiles: &[ConvTile], caps: &Caps, dtype: DType) -> Vec<ConvTile> {
        if !caps.f16 || dtype != DType::F16 || self.blocks.ins < 2 {
            return Vec::new();
        }
        let half = |tile: &ConvTile| match tile.method {
            ConvMethod::Staged(group) if !group.streamed => {
                let method = ConvMethod::Staged(Workgroup { halves: true, ..group });
                Some(ConvTile { method, ..*tile })
            }
            _ => None,
        };
        tiles.iter().filter_map(half).collect()
    }

    /// Tiles that can compute the shape on any adapter, the default first.
    pub fn candidates(&self, caps: &Caps) -> Vec<ConvTile> {
        let mut tiles = Vec::new();
        if sharing(caps).is_some() && self.geometry.spec.kernel == [3; 3] {
            tiles.extend(if self.is_winograd() { self.winograd() } else { self.shared() });
        }
        if caps.software {
            tiles.extend(self.direct_software());
        } else if self.has_little_to_share(caps) {
            tiles.extend(self.direct(caps));
            tiles.extend(staged_tiles(self, caps));
        } else {
            tiles.extend(staged_tiles(self, caps));
            let staged = !tiles.is_empty();
            let direct = self.direct(caps).into_iter();
            tiles.extend(direct.filter(|tile| !staged || self.may_go_direct(tile)));
        }
        distinct(tiles)
    }

    /// Whether threads that walk over all inputs by themselves may be near staged tiles: not where they are few, nor where a stride
    /// leaves each of them few taps for what it loads.
    fn may_go_direct(&self, tile: &ConvTile) -> bool {
        let Geometry { spec, transposed } = self.geometry;
        self.direct_threads(tile) >= LEAST_DIRECT && !(transposed && spec.stride != [1; 3])
    }

    /// Threads that make all outputs, each a tile.
    fn direct_threads(&self, tile: &ConvTile) -> usize {
        let [d, h, w] = self.spatial;
        let of_sample = d * h.div_ceil(tile.lines) * w.div_ceil(tile.vox);
        self.samples * of_sample * self.blocks.outs.div_ceil(tile.out)
    }

    /// Whether staging was found to cost more than it saves: a first layer, whose inputs are few, and strided convolutions, whose
    /// inputs serve few outputs, where there are outputs enough to fill a GPU without parts.
    fn has_little_to_share(&self, caps: &Caps) -> bool {
        let Geometry { spec, transposed } = self.geometry;
        let filled = if caps.subgroup_size == 0 { FILLED_BY_SCALARS } else { FILLED };
        !transposed && (self.lanes < 4 || spec.stride != [1; 3] && self.threads() >= filled)
    }

    /// Threads that make four neighbours of up to four output blocks each.
    fn threads(&self) -> usize {
        let voxels = self.spatial.iter().product::<usize>();
        self.samples * voxels * self.blocks.outs / (4 * out_tile(self.blocks.outs))
    }

    fn is_winograd(&self) -> bool {
        let Geometry { spec: ConvSpec { stride, .. }, transposed } = self.geometry;
        let strides = if transposed { stride == [1; 3] } else { stride[2] == 1 };
        strides && self.lanes == 4
    }

    fn shared(&self) -> Vec<ConvTile> {
        let (out, widths) = if self.geometry.transposed {
            let step = self.geometry.spec.stride[2];
            let widths = [(5, 61), (4, 49), (2, 31), (1, 20)];
            (self.blocks.outs.min(4), widths.map(|(vox, cost)| (vox * step, cost)).to_vec())
        } else {
            (self.blocks.outs.min(8), vec![(5, 40), (4, 33), (7, 54), (3, 27), (10, 89)])
        };
        self.of_widths(ConvMethod::Shared, out, &widths)
    }

    fn winograd(&self) -> Vec<ConvTile> {
        let widths = [(8, 75), (6, 57), (4, 43), (10, 114), (2, 31)];
        self.of_widths(ConvMethod::Winograd, out_tile(self.blocks.outs), &widths)
    }

    /// Tiles of the counts of neighbours along W that cost least, given with what a line of each was found to cost.
    fn of_widths(
        &self,
        method: ConvMethod,
        out: usize,
        widths: &[(usize, usize)],
    ) -> Vec<ConvTile> {
        let mut widths = widths.to_vec();
        widths.sort_by_key(|(vox, cost)| self.spatial[2].div_ceil(*vox) * cost);
        let tile = |(vox, _)| ConvTile { method, vox, lines: 1, out };
        widths.into_iter().map(tile).take(2).collect()
    }

    /// Where loads are dear: two lines, so that a weight that was loaded serves both, of the count up to 10 that wastes least.
    fn direct_software(&self) -> Vec<ConvTile> {
        let Geometry { spec, transposed } = self.geometry;
        let step = if transposed { spec.stride[2] } else { 1 };
        let width = self.spatial[2];
        let waste = |count: usize| width.next_multiple_of(count) - width;
        let mut widths: Vec<usize> = (1..=10 / step).map(|n| n * step).collect();
        widths.sort_by_key(|count| (waste(*count), 10 - count));
        let lines = if self.height() > 1 { 2 } else { 1 };
        let tile = |vox| ConvTile {
            method: ConvMethod::Direct,
            vox,
            lines,
            out: out_tile(self.blocks.outs),
        };
        widths.into_iter().take(2).map(tile).collect()
    }

    /// Lines of one parity.
    fn height(&self) -> usize {
        self.geometry.positions(self.spatial).1[1]
    }

    fn direct(&self, caps: &Caps) -> Vec<ConvTile> {
        let out = out_tile(self.blocks.outs);
        let tile = |(vox, lines, out)| ConvTile { method: ConvMethod::Direct, vox, lines, out };
        // inputs that lie apart take registers too
        let apart = !self.geometry.transposed && self.geometry.spec.stride[2] > 1;
        let tiles = if apart && self.lanes == 4 {
            let mut tiles = [(2, 1, out), (2, 1, out.min(2)), (4, 1, out)];
            if caps.subgroup_size > 0 {
                // measured on an NVIDIA H200
                tiles.rotate_right(1);
            } else if self.threads() < FEW {
                tiles.swap(0, 1);
            }
            tiles.to_vec()
        } else if out > 2 {
            vec![(4, 1, out), (2, 1, out), (4, 1, 2)]
        } else {
            vec![(4, 1, out), (2, 1, out)]
        };
        tiles.into_iter().map(tile).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(spec: ConvSpec, width: usize, transposed: bool) -> ConvSite {
        let spatial = [5, 9, width];
        ConvSite {
            geometry: Geometry { spec, transposed },
            samples: 1,
            spatial,
            blocks: ChannelBlocks { ins: 4, outs: 4 },
            lanes: 4,
            loads: 1,
        }
    }

    fn software(subgroup_size: u32) -> Caps {
        Caps { software: true, subgroup_size, ..Caps::default() }
    }

    #[test]
    fn defaults_follow_the_adapter() {
        let first = |shape: ConvSite, caps: &Caps| shape.candidates(caps)[0];
        let same = shape(ConvSpec::same(), 40, false);
        let staged = |tile: ConvTile| matches!(tile.method, ConvMethod::Staged(_));
        assert!(staged(first(same, &Caps::default())));
        assert_eq!(first(same, &software(0)).method, ConvMethod::Direct);
        assert_eq!(first(same, &software(12)).method, ConvMethod::Direct);
        assert_eq!(first(same, &software(8)).method, ConvMethod::Winograd);
        assert!(staged(first(same, &Caps { subgroup_size: 32, ..Caps::default() })));
        assert_eq!(first(same, &software(8)).vox, 8);
        assert_eq!(first(shape(ConvSpec::same(), 5, false), &software(8)).vox, 6);
    }

    /// On AMD and Intel weights go to scalar registers; where subgroups have one size they are staged first.
    #[test]
    fn weights_are_streamed_first_where_subgroups_vary() {
        let same = shape(ConvSpec::same(), 40, false);
        let streams = |tile: &ConvTile| match tile.method {
            ConvMethod::Staged(group) => {
                assert!(!group.streamed || group.outs == 1, "{tile}");
                group.streamed
            }
            _ => false,
        };
        for (subgroup_size, first) in [(0, true), (32, false)] {
            let tiles = same.candidates(&Caps { subgroup_size, ..Caps::default() });
            assert_eq!(streams(&tiles[0]), first);
            let staged = |tile: &&ConvTile| matches!(tile.method, ConvMethod::Staged(_));
            let kinds: Vec<bool> = tiles.iter().filter(staged).map(streams).collect();
            assert!(kinds.contains(&true) && kinds.contains(&false));
        }
    }

    #[test]
    fn halves_are_multiplied_where_tensors_are_stored_so() {
        let same = shape(ConvSpec::same(), 40, false);
        let count = |site: &ConvSite, caps: &Caps, dtype| {
            let tiles = site.tiles(caps, dtype);
            let halves = |tile: &ConvTile| match tile.method {
                ConvMethod::Staged(group) => {
                    assert!(!(group.halves && group.streamed), "{tile}");
                    group.halves
                }
                _ => false,
            };
            assert!(!halves(&tiles[0]));
            tiles.iter().filter(|tile| halves(tile)).count()
        };
        let able = Caps { f16: true, ..Caps::default() };
        assert!(count(&same, &able, DType::F16) >= 2);
        assert_eq!(count(&same, &able, DType::F32), 0);
        assert_eq!(count(&same, &Caps::default(), DType::F16), 0);
        assert_eq!(count(&same, &Caps { software: true, ..able.clone() }, DType::F16), 0);
        let first = ConvSite { blocks: ChannelBlocks { ins: 1, outs: 4 }, ..same };
        assert_eq!(count(&first, &able, DType::F16), 0);
    }

    /// A thread that walks over all inputs alone is no match for staged tiles where threads are few.
    #[test]
    fn direct_tiles_are_offered_where_threads_abound_or_nothing_else_fits() {
        let direct = |site: ConvSite| {
            let tiles = site.candidates(&Caps::default());
            tiles.iter().any(|tile| tile.method == ConvMethod::Direct)
        };
        let deep = ChannelBlocks { ins: 32, outs: 32 };
        let of = |spatial| ConvSite { spatial, blocks: deep, ..shape(ConvSpec::same(), 1, false) };
        assert!(!direct(of([5, 7, 5])));
        assert!(direct(of([40, 56, 40])));
        assert!(!of([1; 3]).candidates(&Caps::default()).is_empty());
    }

    /// As an H200 measured it: a first layer and large strided convolutions run faster when threads load by themselves.
    #[test]
    fn what_shares_little_is_not_staged_at_first() {
        let down = ConvSpec::down([2; 3]);
        let is_staged = |site: ConvSite| {
            let first = site.candidates(&Caps::default())[0];
            matches!(first.method, ConvMethod::Staged(_))
        };
        let of = |spec, transposed, spatial, lanes| ConvSite {
            spatial,
            lanes,
            ..shape(spec, 1, transposed)
        };
        assert!(!is_staged(of(ConvSpec::same(), false, [40, 56, 40], 1)));
        assert!(is_staged(of(ConvSpec::same(), false, [40, 56, 40], 4)));
        assert!(!is_staged(of(down, false, [64, 64, 64], 4)));
        assert!(is_staged(of(down, false, [10, 14, 10], 4)));
        assert!(is_staged(of(down, true, [128, 128, 128], 4)));
        // scalar registers make threads that walk alone worth while where they are fewer
        let some = of(down, false, [40, 40, 40], 4);
        let fixed = some.candidates(&Caps { subgroup_size: 32, ..Caps::default() })[0];
        assert!(!is_staged(some) && matches!(fixed.method, ConvMethod::Staged(_)));
        let large = ConvSite {
            samples: 8,
            blocks: ChannelBlocks { ins: 4, outs: 8 },
            ..of(down, false, [64; 3], 4)
        };
        let fixed = large.candidates(&Caps { subgroup_size: 32, ..Caps::default() })[0];
        assert_eq!((fixed.method, fixed.vox), (ConvMethod::Direct, 4));
    }

    #[test]
    fn strides_that_the_transform_cannot_do_go_the_direct_way() {
        let caps = software(8);
        let down = |stride, transposed| shape(ConvSpec::down(stride), 20, transposed);
        let winograd = |shape: ConvSite| {
            shape.candidates(&caps).iter().any(|tile| tile.method == ConvMethod::Winograd)
        };
        assert!(winograd(down([2, 2, 1], false)) && winograd(down([1, 1, 1], true)));
        assert!(!winograd(down([2, 2, 1], true)) && !winograd(down([1, 1, 2], false)));
        assert!(!winograd(ConvSite { lanes: 1, ..shape(ConvSpec::same(), 20, false) }));
        for shape in [down([2; 3], true), down([1, 1, 2], false)] {
            assert_eq!(shape.candidates(&caps)[0].method, ConvMethod::Shared);
        }
    }

    /// A tile of an input gradient covers whole strides.
    #[test]
    fn tiles_along_a_stride_are_multiples() {
        for width in 1..40 {
            for caps in [software(0), software(8), Caps::default()] {
                let tiles = shape(ConvSpec::down([2; 3]), width, true).candidates(&caps);
                assert!(tiles.iter().all(|tile| tile.vox % 2 == 0 && tile.vox > 0));
            }
        }
    }
}
