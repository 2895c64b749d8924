//! Radix sort and prefix sums as dispatches; the recipes stand in the shaders' headers.

use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Graph, Lowering, Storage, Value, ValueInfo, fold};
use crate::engine::shader::KernelKey;

/// Values of a tile of the scan kernels.
const SCAN_TILE: usize = 4096;
/// Keys of a tile of the sort kernels.
const SORT_TILE: usize = 2048;
/// Sorted bits, eight a pass.
const BITS: usize = 32;

/// A prefix sum of u32 words in place.
pub struct Scan {
    /// The data, then the sums of the tiles of each level below.
    levels: Vec<(Value, usize)>,
}

impl Scan {
    /// Words of each scratch level for `count` values.
    pub fn scratch(count: usize) -> Vec<usize> {
        let mut levels = Vec::new();
        let mut left = count;
        while left > SCAN_TILE {
            left = left.div_ceil(SCAN_TILE);
            levels.push(left);
        }
        levels
    }

    pub fn new(count: usize, data: Value, scratch: &[Value]) -> Self {
        let below = scratch.iter().copied().zip(Self::scratch(count));
        Self { levels: std::iter::once((data, count)).chain(below).collect() }
    }

    /// Exclusive prefix sums.
    pub fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        for pair in self.levels.windows(2) {
            let ((data, count), (sums, tiles)) = (pair[0], pair[1]);
            dispatches.push(
                Dispatch::new(
                    "scan",
                    KernelKey::new("scan_reduce.wgsl"),
                    fold(tiles, lowering.caps)?,
                )
                .bind("data", lowering.whole(data))
                .bind("sums", lowering.whole(sums))
                .param("count", count)
                .param("tiles", tiles)
                .work(count as u64, (count * 4) as u64),
            );
        }
        for (index, (data, count)) in self.levels.iter().copied().enumerate().rev() {
            let tiles = count.div_ceil(SCAN_TILE);
            let dispatch = Dispatch::new(
                "scan",
                KernelKey::new("scan_apply.wgsl"),
                fold(tiles, lowering.caps)?,
            )
            .bind("data", lowering.whole(data))
            .param("count", count)
            .param("tiles", tiles)
            .work((count * 2) as u64, (count * 12) as u64);
            dispatches.push(match self.levels.get(index + 1) {
                Some((carry, _)) => {
                    dispatch.bind("carry", lowering.whole(*carry)).param("use_carry", 1)
                }
                // the kernel does not read it, but a binding wants a buffer of its own
                None => dispatch
                    .bind("carry", lowering.whole(idle(lowering.graph)?))
                    .param("use_carry", 0),
            });
        }
        Ok(dispatches)
    }
}

/// A read-only buffer of words other than the data of a scan: any parameter or input of the graph.
fn idle(graph: &Graph) -> Result<Value> {
    let words = |info: &ValueInfo| {
        info.layout.is_none() && matches!(info.storage, Storage::Input | Storage::Param(_))
    };
    (0..graph.values().len() as u32)
        .map(Value)
        .find(|value| words(graph.info(*value)))
        .ok_or_else(|| Error::Internal("a graph without inputs".into()))
}

/// A stable sort of (key, payload) pairs of u32.
pub struct Sort {
    pub keys: Value,
    pub payload: Value,
    other_keys: Value,
    other_payload: Value,
    count: usize,
    scan: Scan,
    counts: Value,
}

impl Sort {
    /// Words of each scratch value: two pairs of buffers, digit counts, the scan's levels.
    pub fn scratch(count: usize) -> Vec<usize> {
        let counts = 256 * count.div_ceil(SORT_TILE);
        let mut words = vec![count, count, count, count, counts];
        words.extend(Scan::scratch(counts));
        words
    }

    pub fn new(count: usize, scratch: &[Value]) -> Result<Self> {
        let [keys, payload, other_keys, other_payload, counts, levels @ ..] = scratch else {
            return Err(Error::Internal("a sort lacks its scratch".into()));
        };
        Ok(Self {
            keys: *keys,
            payload: *payload,
            other_keys: *other_keys,
            other_payload: *other_payload,
            count,
            scan: Scan::new(256 * count.div_ceil(SORT_TILE), *counts, levels),
            counts: *counts,
        })
    }

    /// Sorts ascending by key; the result is in `keys` and `payload` again.
    pub fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let tiles = self.count.div_ceil(SORT_TILE);
        let mut dispatches = Vec::new();
        let mut from = (self.keys, self.payload);
        let mut to = (self.other_keys, self.other_payload);
        for shift in (0..BITS).step_by(8) {
            let common = |dispatch: Dispatch| {
                dispatch
                    .param("count", self.count)
                    .param("shift", shift)
                    .param("tiles", tiles)
                    .param("tile", SORT_TILE)
            };
            let histogram = Dispatch::new(
                "radix histogram",
                KernelKey::new("radix_histogram.wgsl"),
                fold(tiles, lowering.caps)?,
            )
            .bind("keys", lowering.whole(from.0))
            .bind("counts", lowering.whole(self.counts))
            .work((self.count * 4) as u64, (self.count * 4) as u64);
            dispatches.push(common(histogram));
            dispatches.extend(self.scan.lower(lowering)?);
            let scatter = Dispatch::new(
                "radix scatter",
                KernelKey::new("radix_scatter.wgsl"),
                fold(tiles, lowering.caps)?,
            )
            .bind("keys", lowering.whole(from.0))
            .bind("payload", lowering.whole(from.1))
            .bind("offsets", lowering.whole(self.counts))
            .bind("keys_out", lowering.whole(to.0))
            .bind("payload_out", lowering.whole(to.1))
            .work((self.count * 12) as u64, (self.count * 16) as u64);
            dispatches.push(common(scatter));
            std::mem::swap(&mut from, &mut to);
        }
        Ok(dispatches)
    }
}
