//! Arrays of a prepared case in Zarr's format, version 3: a file (a shard) holds many chunks, of which a box reads its own, and
//! each chunk has a checksum.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use zarrs::array::{Array, ArraySubset, CodecOptions, ElementOwned};
use zarrs::filesystem::FilesystemStore;

use crate::base::{Error, Result};

/// Voxels along an axis of a chunk, at most.
const CHUNK: usize = 32;
/// Bytes of the values of a shard, about: what is copied at once when it is written.
const SHARD: usize = 64 << 20;

/// A type of values.
pub(super) trait Kind: ElementOwned + bytemuck::Pod {
    const NAME: &'static str;
}

impl Kind for f32 {
    const NAME: &'static str = "float32";
}

impl Kind for u32 {
    const NAME: &'static str = "uint32";
}

impl Kind for u8 {
    const NAME: &'static str = "uint8";
}

/// How an array is cut: chunks of `chunk` values, which lie in shards of `shard`.
#[derive(Debug, Clone, PartialEq)]
struct Cut {
    chunk: Vec<usize>,
    shard: Vec<usize>,
}

impl Cut {
    /// Chunks of about equal size along each of the last three axes, so that the last ones are not mostly empty; a chunk for
    /// each index before those. Shards are slabs along the first of the three.
    fn of(shape: &[usize], size: usize, chunk: usize) -> Self {
        let before = shape.len().saturating_sub(3);
        let balanced = |n: usize| n.div_ceil(n.div_ceil(chunk).max(1)).max(1);
        let chunks = shape.iter().enumerate();
        let chunk: Vec<usize> =
            chunks.map(|(axis, n)| if axis < before { 1 } else { balanced(*n) }).collect();
        let mut shard: Vec<usize> =
            shape.iter().zip(&chunk).map(|(n, chunk)| n.max(&1).next_multiple_of(*chunk)).collect();
        let bytes = shard.iter().product::<usize>() * size;
        let layers = shard[before] / chunk[before];
        let most = (layers as u64 * SHARD as u64 / (bytes as u64).max(1)).max(1);
        shard[before] = chunk[before] * layers.min(most as usize);
        Self { chunk, shard }
    }

    /// zarr.json of an array.
    fn metadata<T: Kind>(&self, shape: &[usize], axes: &[&str]) -> Value {
        let endian = json!({"name": "bytes", "configuration": {"endian": "little"}});
        // its own checksum is compared whatever part of a chunk is read; that of the codec crc32c is not
        let packed = json!({"name": "zstd", "configuration": {"level": 1, "checksum": true}});
        let checked = json!({"name": "crc32c"});
        json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": T::NAME,
            "fill_value": 0,
            "dimension_names": axes,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.shard}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": self.chunk,
                    "codecs": [endian.clone(), packed],
                    "index_codecs": [endian, checked],
                    "index_location": "end",
                },
            }],
        })
    }
}

/// Something that Zarr's library says.
fn told(folder: &Path, name: &str, e: impl std::fmt::Display) -> Error {
    let expected = "an array of a prepared case";
    Error::file(
        folder.join(name),
        e.to_string(),
        expected,
        "Remove the folder; it can be made anew.",
    )
}

fn subset(ranges: &[Range<usize>]) -> ArraySubset {
    let ranges: Vec<Range<u64>> =
        ranges.iter().map(|range| range.start as u64..range.end as u64).collect();
    ArraySubset::new_with_ranges(&ranges)
}

fn open(folder: &Path) -> std::result::Result<Arc<FilesystemStore>, String> {
    FilesystemStore::new(folder).map(Arc::new).map_err(|e| e.to_string())
}

/// An array that is written.
pub(super) struct Written<'a, T> {
    /// Of the array in its folder.
    pub name: &'a str,
    /// Names of its axes; the last is the fastest.
    pub axes: &'a [&'a str],
    pub shape: &'a [usize],
    pub values: &'a [T],
    /// Values along an axis of a chunk, at most.
    pub chunk: usize,
}

impl<'a, T: Kind> Written<'a, T> {
    /// Voxels, with the axes D, H, W last.
    pub fn voxels(name: &'a str, shape: &'a [usize], values: &'a [T]) -> Self {
        let axes = &["c", "d", "h", "w"][4 - shape.len().min(4)..];
        Self { name, axes, shape, values, chunk: CHUNK }
    }

    /// Writes the array below a folder. Shard after shard, so that no second copy of all values is in memory.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let Self { name, axes, shape, values, chunk } = *self;
        let refuse = |e: String| told(folder, name, e);
        let cut = Cut::of(shape, size_of::<T>(), chunk);
        let metadata = serde_json::from_value(cut.metadata::<T>(shape, axes));
        let metadata = metadata.map_err(|e| refuse(e.to_string()))?;
        let store = open(folder).map_err(refuse)?;
        let array = Array::new_with_metadata(store, &format!("/{name}"), metadata);
        let array = array.map_err(|e| refuse(e.to_string()))?;
        array.store_metadata().map_err(|e| refuse(e.to_string()))?;
        let slabs = shape.len().saturating_sub(3);
        for first in (0..shape[slabs]).step_by(cut.shard[slabs]) {
            let planes = first..(first + cut.shard[slabs]).min(shape[slabs]);
            let mut ranges: Vec<Range<usize>> = shape.iter().map(|n| 0..*n).collect();
            ranges[slabs] = planes.clone();
            // those planes of each channel
            let plane: usize = shape[slabs + 1..].iter().product();
            let each = values.chunks(plane * shape[slabs]);
            let slab: Vec<T> = each
                .flat_map(|values| &values[planes.start * plane..planes.end * plane])
                .copied()
                .collect();
            array.store_array_subset(&subset(&ranges), slab).map_err(|e| refuse(e.to_string()))?;
        }
        Ok(())
    }
}

/// Reads the values of an array below a folder in the ranges along its axes, on this thread alone.
///
/// # Errors
///
/// Where files are missing, cut off or damaged.
pub(super) fn read<T: Kind>(folder: &Path, name: &str, ranges: &[Range<usize>]) -> Result<Vec<T>> {
    let refuse = |e: String| told(folder, name, e);
    let array = Array::open(open(folder).map_err(refuse)?, &format!("/{name}"));
    let array = array.map_err(|e| refuse(e.to_string()))?;
    let alone = CodecOptions::default().with_concurrent_target(1);
    let values = array.retrieve_array_subset_opt::<Vec<T>>(&subset(ranges), &alone);
    let values = values.map_err(|e| refuse(e.to_string()))?;
    let expected: usize = ranges.iter().map(ExactSizeIterator::len).product();
    match values.len() == expected {
        true => Ok(values),
        false => Err(refuse(format!("{} values where {expected} were asked for", values.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_balanced_and_shards_bounded() {
        let cut = Cut::of(&[2, 35, 50, 33], 4, 32);
        assert_eq!(cut.chunk, [1, 18, 25, 17]);
        assert_eq!(cut.shard, [2, 36, 50, 34]);
        let cut = Cut::of(&[1, 450, 512, 512], 4, 32);
        assert_eq!((cut.chunk[1], cut.shard[1] % cut.chunk[1]), (30, 0));
        let bytes = cut.shard.iter().product::<usize>() * 4;
        assert!(bytes <= SHARD && bytes > SHARD / 2, "{bytes}");
        assert_eq!(Cut::of(&[7], 4, 4096).chunk, [7]);
        // one layer of chunks is the least
        assert_eq!(Cut::of(&[64, 8192, 8192], 4, 32).shard, [32, 8192, 8192]);
    }

    #[test]
    fn boxes_come_back_bit_for_bit_across_chunks_and_shards() {
        let folder = tempfile::tempdir().unwrap();
        let shape = [3, 40, 37, 65];
        let count: usize = shape.iter().product();
        let odd = [f32::NAN, -0.0, f32::MIN_POSITIVE, 1e-42, f32::INFINITY];
        let value = |i: usize| if i % 11 < 5 { odd[i % 11] } else { (i as f32 * 0.37).sin() };
        let values: Vec<f32> = (0..count).map(value).collect();
        Written::voxels("image", &shape, &values).write(folder.path()).unwrap();
        for ranges in [
            [0..3, 0..40, 0..37, 0..65],
            [1..2, 39..40, 36..37, 64..65],
            [0..3, 15..33, 1..36, 30..65],
        ] {
            let read: Vec<f32> = read(folder.path(), "image", &ranges).unwrap();
            let mut expected = Vec::new();
            for c in ranges[0].clone() {
                for z in ranges[1].clone() {
                    for y in ranges[2].clone() {
                        let row = ((c * shape[1] + z) * shape[2] + y) * shape[3];
                        expected
                            .extend_from_slice(&values[row + ranges[3].start..row + ranges[3].end]);
                    }
                }
            }
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&read), bits(&expected));
        }
    }

    #[test]
    fn any_changed_byte_of_a_shard_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<u8> = (0..4000u32).map(|i| (i * i / 7 % 251) as u8).collect();
        Written::voxels("label", &[10, 20, 20], &values).write(folder.path()).unwrap();
        let all = [0..10, 0..20, 0..20];
        // one voxel of a chunk
        let one = [4..5, 11..12, 7..8];
        let shard = folder.path().join("label/c/0/0/0");
        let whole = std::fs::read(&shard).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&shard, &bytes).unwrap();
            let found = read::<u8>(folder.path(), "label", &all);
            assert!(found.is_err() || found.unwrap() == values, "byte {at}");
            let found = read::<u8>(folder.path(), "label", &one);
            assert!(
                found.is_err() || found.unwrap() == [values[(4 * 20 + 11) * 20 + 7]],
                "byte {at}"
            );
        }
        std::fs::write(&shard, &whole[..whole.len() / 2]).unwrap();
        assert!(read::<u8>(folder.path(), "label", &all).is_err());
        std::fs::write(&shard, &whole).unwrap();
        assert_eq!(read::<u8>(folder.path(), "label", &all).unwrap(), values);
    }
}
