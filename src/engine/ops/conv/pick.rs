//! Which workgroups suit a staged convolution: those of all that fit whose time, by a model of a GPU, is least.

use super::site::{ConvMethod, ConvSite, ConvTile, Workgroup};
use super::spec::ConvSpec;
use super::staged_box::{MEMORY, StagedBox};
use crate::engine::graph::Caps;

/// The GPU of the model: units of four times 32 lanes, as many as a class of adapters has.
const LANES: usize = 32;
const QUARTERS: f64 = 4.0;

/// Invocations of a unit at a time, at most; its registers; its workgroup memory.
const INVOCATIONS: usize = 2048;
const REGISTERS: usize = 65_536;
const UNIT_MEMORY: usize = 160 << 10;

/// Invocations of a workgroup, at most.
const GROUP: usize = 256;

/// Vectors of weights that a thread loads ahead, at most.
const LOADS: usize = 12;

/// Vectors of the input that a thread stages at once where weights are streamed, at most.
const SLOTS: usize = 8;

/// Vectors that a thread sums, at most.
const SUMS: usize = 20;

/// Vectors that a thread makes of which it can hold the sums of a plane of taps, too.
const FEW_SUMS: usize = 8;

/// Cycles: of a dispatch, of a workgroup, of waiting for an input block, and for the others at a plane of taps.
const DISPATCH: f64 = 4000.0;
const START: f64 = 2500.0;
const INPUT_LATENCY: f64 = 1200.0;
const MEETING: f64 = 150.0;

/// Bytes of memory a cycle.
const BYTES: f64 = 1500.0;

/// Bytes of the caches a cycle.
const CACHED: f64 = 3000.0;

/// Registers of a thread from which few threads fit an adapter, and those that some compilers spill.
const MANY: usize = 128;
const MOST: usize = 180;

/// Variants that are offered of a site: those that take few registers, one that may take many, and those that stream weights.
const SMALL: usize = 2;
const LARGE: usize = 1;
const STREAMED: usize = 2;

/// Staged tiles, the best first. Where subgroups vary in size (AMD, Intel) what a workgroup shares goes to scalar registers, so that
/// streamed weights cost no reads of workgroup memory and come first; elsewhere they come last, after one that takes many registers.
pub fn staged_tiles(site: &ConvSite, caps: &Caps) -> Vec<ConvTile> {
    let (mut small, mut large, mut streamed) = (Vec::new(), Vec::new(), Vec::new());
    for tile in thread_tiles(site) {
        let fits = |group: &&Rated| group.registers <= MANY;
        let staged = rated(site, &tile, caps, false);
        small.extend(best(staged.iter().filter(fits), &tile));
        large.extend(best(staged.iter(), &tile));
        streamed.extend(best(rated(site, &tile, caps, true).iter().filter(fits), &tile));
    }
    let sorted = |mut tiles: Vec<(f64, ConvTile)>, count| {
        tiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        tiles.into_iter().map(|(_, tile)| tile).take(count).collect::<Vec<_>>()
    };
    let staged = [sorted(small, SMALL), sorted(large, LARGE)].concat();
    let streamed = sorted(streamed, STREAMED);
    if caps.subgroup_size == 0 { [streamed, staged] } else { [staged, streamed] }.concat()
}

/// A workgroup with what it takes.
struct Rated {
    group: Workgroup,
    registers: usize,
    cost: f64,
}

/// Workgroups that fit, of threads that make this.
fn rated(site: &ConvSite, tile: &ConvTile, caps: &Caps, streamed: bool) -> Vec<Rated> {
    let fit = workgroups(site, tile, caps, streamed).into_iter();
    let rated = fit.map(|group| {
        let registers = registers(site, tile, &group);
        Rated { group, registers, cost: cost(site, tile, &group, caps.units()) }
    });
    rated.filter(|rated| rated.registers <= MOST).collect()
}

/// The one that costs least, with its cost.
fn best<'a>(rated: impl Iterator<Item = &'a Rated>, tile: &ConvTile) -> Option<(f64, ConvTile)> {
    let best = rated.min_by(|a, b| a.cost.total_cmp(&b.cost))?;
    Some((best.cost, ConvTile { method: ConvMethod::Staged(best.group), ..*tile }))
}

/// What a thread can make: neighbours along W that waste least, one line or two, some output blocks.
fn thread_tiles(site: &ConvSite) -> Vec<ConvTile> {
    let (_, [_, height, width]) = site.geometry.positions(site.spatial);
    let step = if site.geometry.transposed { site.geometry.spec.stride[2] } else { 1 };
    let mut widths = vec![5, 4, 6, 3, 2, 8];
    widths.retain(|vox| vox % step == 0);
    widths.sort_by_key(|vox| (width.next_multiple_of(*vox) - width) * 60 / width);
    let mut tiles = Vec::new();
    for vox in widths.into_iter().take(3) {
        for lines in 1..=height.min(2) {
            for out in [1, 2, 4].into_iter().filter(|out| *out == 1 || *out <= site.blocks.outs) {
                tiles.push(ConvTile { method: ConvMethod::Direct, vox, lines, out });
            }
        }
    }
    tiles.retain(|tile| tile.vox * tile.lines * tile.out <= SUMS);
    tiles
}

/// Counts that share out `all` evenly.
fn shares(all: usize, most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (1..=all).map(|parts| all.div_ceil(parts)).collect();
    counts.dedup();
    counts.retain(|count| *count <= most);
    counts
}

/// Workgroups that fit what every adapter has.
fn workgroups(site: &ConvSite, tile: &ConvTile, caps: &Caps, streamed: bool) -> Vec<Workgroup> {
    let (_, [depth, height, width]) = site.geometry.positions(site.spatial);
    let along_d = shares(depth, 8);
    let along_h = shares(height.div_ceil(tile.lines), 16);
    let along_w = shares(width.div_ceil(tile.vox), 16);
    let teams = if streamed { 1 } else { 8 };
    let along_o = shares(site.blocks.outs.div_ceil(tile.out), teams);
    let splits = splits(site, caps);
    let mut fit = Vec::new();
    for &d in &along_d {
        for &h in &along_h {
            for &w in &along_w {
                for &outs in along_o.iter().filter(|outs| d * h * w * *outs <= GROUP) {
                    let group =
                        Workgroup { threads: [d, h, w], outs, splits: 1, streamed, halves: false };
                    let staged = StagedBox::new(&site.geometry, tile, &group);
                    let few = match streamed {
                        true => staged.slots(&group) <= SLOTS,
                        false => staged.weights() <= LOADS * group.invocations(),
                    };
                    if few && staged.bytes() <= MEMORY {
                        fit.extend(
                            splits.iter().map(|splits| Workgroup { splits: *splits, ..group }),
                        );
                    }
                }
            }
        }
    }
    fit
}

/// Parts into which the input blocks can be cut, so that what they make can be bound.
fn splits(site: &ConvSite, caps: &Caps) -> Vec<usize> {
    let ins = site.blocks.ins;
    let mut counts: Vec<usize> =
        shares(ins, ins).into_iter().map(|each| ins.div_ceil(each)).collect();
    counts.dedup();
    counts.retain(|count| {
        *count == 1 || (site.partial(*count).words() * 4) as u64 <= caps.max_binding
    });
    counts
}

/// Registers of a thread: its sums, those of a row of taps, inputs, a matrix, weights on their way, places.
fn registers(site: &ConvSite, tile: &ConvTile, group: &Workgroup) -> usize {
    let staged = StagedBox::new(&site.geometry, tile, group);
    let ConvTile { vox, lines, out, .. } = *tile;
    let row = site.geometry.row(vox).inputs;
    let vectors = vox * lines * (out + sums(tile, group)) + row * lines;
    if group.streamed {
        return 4 * vectors + 22;
    }
    let loads = staged.weights().div_ceil(group.invocations());
    // a matrix, places, and columns of weights that are on their way for each output block
    4 * (vectors + 4 + loads) + 26 + 2 * out
}

/// Output blocks whose sums of a plane of taps a thread holds at a time: all, where that takes few registers and weights take none.
pub fn sums(tile: &ConvTile, group: &Workgroup) -> usize {
    let all = tile.vox * tile.lines * tile.out;
    if group.streamed && all <= FEW_SUMS { tile.out } else { 1 }
}

/// Cycles that the convolution takes.
fn cost(site: &ConvSite, tile: &ConvTile, group: &Workgroup, units: usize) -> f64 {
    let staged = StagedBox::new(&site.geometry, tile, group);
    let ConvSpec { kernel: [_, _, kw], stride: [_, _, sw], .. } = site.geometry.spec;
    let [kd, kh] = site.geometry.taps();
    let ConvTile { vox, lines, out, .. } = *tile;
    let invocations = group.invocations();
    // where weights are streamed a wave has twice the lanes
    let wave = if group.streamed { 2 } else { 1 };
    let warps = invocations.div_ceil(wave * LANES) * wave;
    // of a thread and a plane of taps
    let lanes = if site.lanes < 4 { site.lanes as usize } else { 4 };
    let made = vox * lines * out * 4;
    let row = site.geometry.row(vox).inputs;
    let taps = if site.geometry.transposed { kw.div_ceil(sw) } else { kw };
    let products = made * (kh * taps * lanes + if sums(tile, group) < out { kh } else { 1 });
    let inputs = kh * lines * row;
    let weights = kh * kw * out * lanes;
    let loads = staged.weights().div_ceil(invocations);
    let staged_inputs = staged.inputs().div_ceil(invocations);
    let (staging, weight_reads) = match group.streamed {
        true => (staged_inputs * (30 + 15 * site.loads) / kd, 0),
        false => (staged_inputs * (30 + 15 * site.loads) / kd + loads * 15, 12 * weights),
    };
    let issued = products + 3 * inputs + weights + staging + 40;
    let step = issued.max(16 * inputs + weight_reads) as f64;
    let steps = (site.blocks.ins.div_ceil(group.splits) * kd) as f64;
    let latency = INPUT_LATENCY / kd as f64 + MEETING;

    let registers = registers(site, tile, group).next_multiple_of(8);
    let resident = (REGISTERS / (registers * warps * LANES))
        .min(INVOCATIONS / (warps * LANES))
        .min(UNIT_MEMORY / (staged.bytes() + 1024))
        .max(1);
    let (parities, positions) = site.geometry.positions(site.spatial);
    let groups = staged.count(positions)
        * parities
        * site.blocks.outs.div_ceil(staged.outs)
        * site.samples
        * group.splits;
    let of_unit = groups.div_ceil(units);
    let quarter = warps as f64 / QUARTERS;
    let alone = steps * (step * quarter.max(1.0) + latency) + START;
    let busy = of_unit as f64 * quarter * step * steps;
    let read = (staged.inputs() * site.loads + staged.weights() * kd) * site.blocks.ins * 16;
    let moved = (groups / group.splits * read) as f64 / CACHED;
    let time = busy.max(of_unit.div_ceil(resident) as f64 * alone) + moved / 2.0;
    if group.splits == 1 {
        return time;
    }
    time + DISPATCH + (site.partial(group.splits).words() * 8) as f64 / BYTES
}

#[cfg(test)]
mod tests {
    use super::super::super::load::ChannelBlocks;
    use super::super::site::Geometry;
    use super::*;

    fn site(geometry: Geometry, spatial: [usize; 3], ins: usize, outs: usize) -> ConvSite {
        let blocks = ChannelBlocks { ins, outs };
        ConvSite { geometry, samples: 2, spatial, blocks, lanes: 4, loads: 1 }
    }

    fn workgroup(tile: &ConvTile) -> Workgroup {
        let ConvMethod::Staged(group) = tile.method else { panic!("{tile}") };
        group
    }

    fn count(site: &ConvSite, tile: &ConvTile) -> usize {
        let group = workgroup(tile);
        let staged = StagedBox::new(&site.geometry, tile, &group);
        let (parities, positions) = site.geometry.positions(site.spatial);
        let tiles = site.blocks.outs.div_ceil(staged.outs);
        staged.count(positions) * parities * tiles * site.samples * group.splits
    }

    /// Small and large, flat and deep: but for a few voxels there are tiles, and they fit what every adapter has.
    #[test]
    fn tiles_fit_every_adapter() {
        let flat = ConvSpec {
            kernel: [1, 3, 3],
            pad_lo: [0, 1, 1],
            pad_hi: [0, 1, 1],
            ..ConvSpec::same()
        };
        let one = ConvSpec { stride: [2; 3], ..ConvSpec::pointwise() };
        for spec in [ConvSpec::same(), ConvSpec::down([2; 3]), ConvSpec::down([1, 2, 2]), flat, one]
        {
            for spatial in [[1, 1, 1], [1, 1, 9], [5, 7, 5], [3, 192, 160], [40, 2, 33]] {
                for (ins, outs) in [(1, 8), (5, 3), (32, 64)] {
                    for transposed in [false, true] {
                        let site = site(Geometry { spec, transposed }, spatial, ins, outs);
                        let tiles = staged_tiles(&site, &Caps::default());
                        let few = spatial.iter().product::<usize>() < 10;
                        assert!(few || !tiles.is_empty(), "{site:?}");
                        for tile in tiles {
                            let group = workgroup(&tile);
                            let staged = StagedBox::new(&site.geometry, &tile, &group);
                            assert!(staged.bytes() <= MEMORY && group.invocations() <= 256);
                            assert!(group.splits <= ins);
                            let step = if transposed { spec.stride[2] } else { 1 };
                            assert_eq!(tile.vox % step, 0, "{site:?} {tile}");
                        }
                    }
                }
            }
        }
    }

    /// Levels of few voxels and many channels keep a GPU busy by parts of the input blocks, which small bindings do not hold.
    #[test]
    fn deep_levels_are_cut_along_the_input() {
        for (spatial, blocks) in [([20, 28, 20], 8), ([10, 14, 10], 16), ([5, 7, 5], 32)] {
            for transposed in [false, true] {
                let geometry = Geometry { spec: ConvSpec::same(), transposed };
                let site = site(geometry, spatial, blocks, blocks);
                let best = staged_tiles(&site, &Caps::default())[0];
                assert!(count(&site, &best) >= 200, "{site:?} {best}");
                let caps = Caps { max_binding: 1 << 16, ..Caps::default() };
                let tiles = staged_tiles(&site, &caps);
                assert!(tiles.iter().all(|tile| workgroup(tile).splits == 1));
            }
        }
        let deep = site(Geometry { spec: ConvSpec::same(), transposed: false }, [5, 7, 5], 32, 32);
        assert!(workgroup(&staged_tiles(&deep, &Caps::default())[0]).splits > 1);
    }
}
