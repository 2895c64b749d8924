//! Tensors in files of the safetensors format: the same tensors and metadata always give the same bytes, and a checksum over
//! both tells a damaged file.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use crate::base::files::{read_bytes, stand_in, write_keeping};
use crate::base::{Error, Result};

/// A tensor in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, the slowest first.
    pub dims: Vec<usize>,
    /// The numbers, the last axis fastest.
    pub values: Vec<f32>,
}

/// The field of the metadata that holds the checksum.
const CHECKSUM: &str = "checksum";
/// The field that says of what it is: a file that lost one of the two is damaged, one without both is of an earlier version.
const CHECKED: &str = "checked";
const WHAT: &str = "metadata and tensors, blake3";
/// What a file must be.
const EXPECTED: &str = "a model of this program (safetensors)";
/// Numbers that become bytes at a time.
const CHUNK: usize = 1 << 14;

/// An entry of a file's header.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: Dtype, shape: &'a [usize], data_offsets: [usize; 2] },
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Of the metadata without the checksum itself, and of the names, sizes and bits of the tensors.
fn checksum<'a>(
    metadata: impl IntoIterator<Item = (&'a String, &'a String)>,
    tensors: &BTreeMap<String, Tensor>,
) -> String {
    let mut hash = blake3::Hasher::new();
    let fields: BTreeMap<_, _> = metadata.into_iter().filter(|(key, _)| *key != CHECKSUM).collect();
    // behind their lengths, so that no two lists of them read alike
    for text in fields.into_iter().flat_map(|(key, value)| [key, value]) {
        hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    for (name, Tensor { dims, values }) in tensors {
        hash.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hash.update(&(dims.len() as u64).to_le_bytes());
        for size in dims {
            hash.update(&(*size as u64).to_le_bytes());
        }
        for values in values.chunks(CHUNK) {
            hash.update(&le_bytes(values));
        }
    }
    hash.finalize().to_hex().to_string()
}

/// Length and header of a file.
fn header(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::from([("__metadata__", Entry::Metadata(metadata))]);
    let mut end = 0;
    for (name, Tensor { dims: shape, values }) in tensors {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Internal(format!("{} numbers of {name} {shape:?}", values.len())));
        }
        let data_offsets = [end, end + 4 * values.len()];
        end = data_offsets[1];
        entries.insert(name, Entry::Tensor { dtype: Dtype::F32, shape, data_offsets });
    }
    let mut json = serde_json::to_vec(&entries).map_err(|e| Error::Internal(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// What a tensor holds that is no finite number, in words.
fn not_finite(name: &str, values: &[f32]) -> Option<String> {
    let at = values.iter().position(|value| !value.is_finite())?;
    Some(format!("{} at {at} of tensor {name}", values[at]))
}

/// Writes tensors and metadata as safetensors, aside and renamed.
///
/// # Errors
///
/// Where the file cannot be written whole, a number is not finite, or a tensor has another number of values than its sizes say; what
/// was there stays then.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    write_tensors_keeping(path, None, tensors, metadata)
}

/// As [`write_tensors`]; what was there is kept under the name `earlier`, where that is given.
///
/// # Errors
///
/// As [`write_tensors`].
pub fn write_tensors_keeping(
    path: &Path,
    earlier: Option<&Path>,
    tensors: &BTreeMap<String, Tensor>,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    if let Some(found) = tensors.iter().find_map(|(name, t)| not_finite(name, &t.values)) {
        let remedy = "Nothing was written. Train anew with a lower `lr`.";
        return Err(Error::file(path, found, "finite numbers to write", remedy));
    }
    metadata.insert(CHECKED.into(), WHAT.into());
    metadata.insert(CHECKSUM.into(), checksum(&metadata, tensors));
    let header = header(tensors, &metadata)?;
    let body = |file: &mut dyn Write| -> io::Result<()> {
        file.write_all(&header)?;
        let mut values = tensors.values().flat_map(|tensor| tensor.values.chunks(CHUNK));
        values.try_for_each(|values| file.write_all(&le_bytes(values)))
    };
    write_keeping(path, earlier, body)
}

/// Reads f32 tensors and metadata of a safetensors file. Files of earlier versions have no checksum.
///
/// # Errors
///
/// Where the file cannot be read, is no whole safetensors file, is damaged, or holds a number that is not finite.
pub fn read_tensors(path: &Path) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    tensors_of(path, &read_bytes(path, EXPECTED)?)
}

/// As [`read_tensors`], of the bytes of a file; `path` is its name in messages.
pub(super) fn tensors_of(
    path: &Path,
    bytes: &[u8],
) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let refuse = |found: String| {
        let remedy = "Give model.safetensors or last.safetensors of a run.";
        Error::file(path, found, EXPECTED, remedy)
    };
    if let Some((found, remedy)) = stand_in(bytes) {
        return Err(Error::file(path, found, EXPECTED, remedy));
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| refuse(e.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| refuse(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(refuse(format!("tensor {name} of type {:?}", view.dtype())));
        }
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if let Some(found) = not_finite(&name, &values) {
            return Err(refuse(found));
        }
        tensors.insert(name, Tensor { dims: view.shape().to_vec(), values });
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    let checked = metadata.contains_key(CHECKED) || metadata.contains_key(CHECKSUM);
    if checked && metadata.get(CHECKSUM) != Some(&checksum(&metadata, &tensors)) {
        return Err(Error::file(
            path,
            "contents that are not those of its checksum: the file is damaged, or was changed",
            "what this program wrote",
            "Restore the file; of one that was changed on purpose, leave the fields checked and checksum out of the metadata.",
        ));
    }
    Ok((tensors, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (BTreeMap<String, Tensor>, BTreeMap<String, String>) {
        let tensor = |dims: &[usize]| {
            let values = (0..dims.iter().product()).map(|i: usize| i as f32 - 2.5).collect();
            Tensor { dims: dims.to_vec(), values }
        };
        let tensors = [("b", tensor(&[2, 3])), ("a", tensor(&[])), ("Z", tensor(&[4, 0]))];
        let metadata = (0..20).map(|i| (format!("field {i}"), format!("{{\"\u{e9}\": {i}}}")));
        (tensors.map(|(name, tensor)| (name.into(), tensor)).into(), metadata.collect())
    }

    #[test]
    fn the_same_contents_are_the_same_bytes_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let (tensors, metadata) = some();
        // maps that were filled in another order
        write_tensors(&one, &tensors, metadata.clone()).unwrap();
        let turned = metadata.clone().into_iter().rev().collect();
        write_tensors(&two, &tensors.clone().into_iter().rev().collect(), turned).unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
        let (found, mut fields) = read_tensors(&one).unwrap();
        assert!(fields.remove(CHECKSUM).is_some() && fields.remove(CHECKED).is_some());
        assert_eq!((found, fields.into_iter().collect()), (tensors, metadata));
    }

    #[test]
    fn every_bit_that_flips_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (tensors, metadata) = some();
        write_tensors(&path, &tensors, metadata).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let (kept, _) = read_tensors(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, &bytes).unwrap();
            // a space between the fields may become another character only where that is no JSON
            assert!(read_tensors(&path).is_err(), "byte {at}: {:?}", whole[at] as char);
        }
        for length in [0, 7, 8, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read_tensors(&path).is_err(), "{length} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read_tensors(&path).unwrap().0, kept);
    }

    #[test]
    fn files_of_before_there_were_checksums_are_read() {
        let (tensors, metadata) = some();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let data = le_bytes(&tensors["b"].values);
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
        let fields: HashMap<String, String> = metadata.into_iter().collect();
        let bytes = safetensors::serialize([("b", view)], Some(fields.clone())).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let (found, kept) = read_tensors(&path).unwrap();
        assert_eq!((&found["b"], kept), (&tensors["b"], fields));
    }
}
