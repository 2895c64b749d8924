//! What is done with input that nobody vouches for: each target reads some bytes as the program would read a file, and uses
//! what was read. Errors are good answers; panics, aborts, long waits and much memory are not. `fuzz` runs the same targets.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use u2seg::low_level::dataset::prepared::{
    CaseData, Cohort, Place, Recipe, Store, StoredCase, Summary,
};
use u2seg::low_level::dataset::{Dataset, Fold, LabelDescription, Labels, Selection, verify};
use u2seg::low_level::domain::DomainPlan;
use u2seg::low_level::files::read_json;
use u2seg::low_level::imaging::{
    self, Grid, Known, LabelMap, Normalisation, Resampling, Volume, VoxelBox,
};
use u2seg::low_level::net::{
    DomainNet, Model, NetConfig, import, part_counts, read_tensors, write_tensors,
};
use u2seg::low_level::run::{RunFolder, read_plan};
use u2seg::low_level::score::ClassKey;
use u2seg::low_level::score::metrics::Comparison;
use u2seg::low_level::score::summary;
use u2seg::low_level::segment::finish;
use u2seg::low_level::train::Checkpoint;
use u2seg::low_level::tune::Record;

/// A target's name and body.
pub type Target = (&'static str, fn(&Path, &[u8]));

/// All of them. Each gets an empty folder of its own beside the bytes.
pub const TARGETS: &[Target] = &[
    ("nifti", nifti),
    ("packed", packed),
    ("pair", pair),
    ("nrrd", nrrd),
    ("metaimage", metaimage),
    ("dicom", dicom),
    ("dataset", dataset),
    ("splits", splits),
    ("plan", plan),
    ("config", config),
    ("model", model),
    ("metadata", metadata),
    ("checkpoint", checkpoint),
    ("import", import_state),
    ("records", records),
    ("prepared", prepared),
];

/// Runs a target in a folder that goes away again.
pub fn run(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let target = TARGETS.iter().find(|(own, _)| *own == name);
    let (_, body) = target.unwrap_or_else(|| panic!("no target {name}"));
    body(folder.path(), bytes);
}

fn put(path: PathBuf, bytes: &[u8]) -> PathBuf {
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A NIfTI file in one piece, packed or not.
fn nifti(folder: &Path, bytes: &[u8]) {
    image(&put(folder.join("a.nii"), bytes));
}

/// The same, packed here: changed bytes of a packed file seldom reach what reads them.
fn packed(folder: &Path, bytes: &[u8]) {
    image(&put(folder.join("a.nii.gz"), &gzip(bytes)));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use u2seg::low_level::files::{Effort, GzipWriter};
    let mut writer = GzipWriter::new(Vec::new(), Effort::Least).unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap()
}

/// A header and an image file.
fn pair(folder: &Path, bytes: &[u8]) {
    let (header, voxels) = bytes.split_at(bytes.len().min(352));
    put(folder.join("a.img"), voxels);
    image(&put(folder.join("a.hdr"), header));
}

/// An NRRD file, whose voxels may lie in another file.
fn nrrd(folder: &Path, bytes: &[u8]) {
    put(folder.join("a.raw"), &[1; 64]);
    image(&put(folder.join("a.nrrd"), bytes));
}

/// A MetaImage, whose voxels may lie in another file.
fn metaimage(folder: &Path, bytes: &[u8]) {
    put(folder.join("a.raw"), &[1; 64]);
    image(&put(folder.join("a.mha"), bytes));
}

/// A file of a DICOM series, alone, beside a whole one, and in an archive.
fn dicom(folder: &Path, bytes: &[u8]) {
    let series = folder.join("series");
    std::fs::create_dir(&series).unwrap();
    image(&put(series.join("a.dcm"), bytes));
    let whole = include_bytes!("../../../fuzz/seeds/dicom/explicit.dcm");
    put(series.join("b.dcm"), whole);
    image(&series);
    imaging::holds_segmentation(&series.join("a.dcm"));
    let _ = imaging::dicom_folders(folder);
}

/// Reads a file as an image and as labels, and does with it what prediction and scoring would do.
fn image(path: &Path) {
    imaging::peek(path, None);
    if let Ok(volume) = imaging::read_image(path) {
        assert!(volume.as_slice().iter().all(|voxel| voxel.is_finite()));
        let by = (Normalisation::ZScore, Resampling::NearestAcross);
        prepare(&volume, [1.0; 3], by.0, by.1);
    }
    let Ok(mut labels) = imaging::read_labels(path, &Known::any()) else { return };
    let mask = path.with_file_name("mask.nii.gz");
    labels.write(&mask).unwrap();
    let again = imaging::read_labels(&mask, &Known::any()).unwrap();
    assert_eq!(again.shape(), labels.shape());
    // headers of NIfTI have floats, those of other formats more digits
    let edges = again.spacing().into_iter().zip(labels.spacing());
    assert!(edges.into_iter().all(|(one, other)| (one - other).abs() <= 1e-6 * other));
    assert!(again.as_slice() == labels.as_slice());
    let classes = [1, 2].map(|value| ClassKey::new([value]));
    Comparison::of(&labels, &labels).unwrap().all_scores(&classes, 1.0);
    imaging::morphology::fill_holes(&mut labels, 1);
    imaging::morphology::keep_largest(&mut labels, 1, imaging::morphology::Connectivity::Full);
}

fn prepare(volume: &Volume, spacing: [f64; 3], how: Normalisation, by: Resampling) {
    if let Ok(prepared) = imaging::prepare(volume, None, spacing, &how, by) {
        assert!(prepared.image.iter().all(|voxel| voxel.is_finite()));
    }
}

/// A dataset of three cases of a few voxels: files that no target changes.
fn fixture() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let (images, labels) = (folder.join("imagesTr"), folder.join("labelsTr"));
        std::fs::create_dir(&images).unwrap();
        std::fs::create_dir(&labels).unwrap();
        let grid = Grid::ras([6, 5, 4], [1.0, 1.0, 2.0]);
        for case in 0..3u8 {
            let image = ndarray::Array3::from_shape_fn((6, 5, 4), |(z, y, x)| {
                (z * 20 + y * 4 + x + usize::from(case)) as f32
            });
            let label = image.mapv(|voxel| (voxel as u8) / 50);
            let name = |channel: &str| format!("c{case}{channel}.nii");
            imaging::write_image(&images.join(name("_0000")), image.view(), &grid).unwrap();
            imaging::write_mask(&labels.join(name("")), label.view(), &grid).unwrap();
        }
        folder
    })
}

/// The fixture's files below another folder.
fn lay_out(folder: &Path) {
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
        for entry in std::fs::read_dir(fixture().join(part)).unwrap() {
            let file = entry.unwrap().path();
            std::fs::hard_link(&file, folder.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
}

/// `dataset.json`.
fn dataset(folder: &Path, bytes: &[u8]) {
    lay_out(folder);
    let description = put(folder.join("dataset.json"), bytes);
    if let Ok(found) = LabelDescription::read(&description) {
        labels(&found.labels);
    }
    let Ok(dataset) = Dataset::open(folder) else { return };
    use_dataset(dataset);
}

const DESCRIPTION: &str = r#"{"name": "Toy", "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii"}"#;

/// `splits_final.json`.
fn splits(folder: &Path, bytes: &[u8]) {
    lay_out(folder);
    put(folder.join("dataset.json"), DESCRIPTION.as_bytes());
    put(folder.join("splits_final.json"), bytes);
    let Ok(dataset) = Dataset::open(folder) else { return };
    use_dataset(dataset);
}

fn use_dataset(dataset: Dataset) {
    labels(&dataset.labels);
    verify(&dataset);
    dataset.files();
    let Ok(dataset) = dataset.select(&Selection::default()) else { return };
    for fold in 0..dataset.folds().min(10) {
        let _ = dataset.split(&Fold::Index(fold), 7);
    }
}

/// What labels are used for, whatever they mean.
fn labels(labels: &Labels) {
    let mut all: Vec<u8> = (0..=u8::MAX).collect();
    labels.encode(&mut all);
    labels.canonical(&mut all);
    labels.decode(&mut all);
    let bits = (labels.region_bits(), labels.known(), labels.written(), labels.described());
    let _ = (bits, labels.unlabelled(labels, &labels.names()));
}

/// `plan.json` of a run.
fn plan(folder: &Path, bytes: &[u8]) {
    put(folder.join("plan.json"), bytes);
    let Ok(plans) = read_plan(folder) else { return };
    plans.iter().take(4).for_each(use_plan);
    let domain = |plan: &DomainPlan| DomainNet {
        name: plan.name.clone(),
        channels: plan.channels,
        classes: plan.labels.outputs(),
        pools: plan.pools,
    };
    let network = NetConfig {
        mode: u2seg::low_level::net::Mode::Universal,
        adapter: u2seg::low_level::net::DomainAdapter::Separable,
        downsample: Default::default(),
        base: 4,
        domains: plans.iter().map(domain).collect(),
    };
    let _ = part_counts(&network);
}

/// Prepares a small image by a plan and cleans up a small mask.
fn use_plan(plan: &DomainPlan) {
    labels(&plan.labels);
    let grid = Grid::ras([9, 8, 7], [1.0, 1.0, 3.0]);
    let channels = plan.channels.min(3);
    let voxels = ndarray::Array4::from_shape_fn((channels, 9, 8, 7), |(c, z, y, x)| {
        ((c * 31 + z * 17 + y * 5 + x) % 23) as f32 - 3.0
    });
    let volume = Volume::new(voxels, grid.clone()).unwrap();
    prepare(&volume, plan.spacing, plan.normalisation, plan.resampling);
    let classes = plan.labels.outputs().max(1);
    let mask = (0..9 * 8 * 7).map(|at| ((at * 7 / 11) % classes) as u8).collect();
    finish(plan, &mut LabelMap::from_vec(mask, grid).unwrap());
}

/// `config.toml` of a run.
fn config(folder: &Path, bytes: &[u8]) {
    put(folder.join("config.toml"), bytes);
    let Ok(run) = RunFolder::read(folder) else { return };
    let config = &run.config;
    let _ = (config.interval(), config.case_bytes());
    // what is read is written as it is
    config.write(&folder.join("config.toml")).unwrap();
    assert_eq!(&RunFolder::read(folder).unwrap().config, config);
}

/// A model, or the model of a checkpoint.
fn model(folder: &Path, bytes: &[u8]) {
    use_model(folder, &put(folder.join("model.safetensors"), bytes));
}

/// What a model or a checkpoint says of itself, a line each: its network, its plans, its training. Its weights are right and
/// its checksum is, too.
fn metadata(folder: &Path, bytes: &[u8]) {
    let weights = include_bytes!("../../../fuzz/seeds/model/separable.safetensors");
    let (tensors, _) = read_tensors(&put(folder.join("seed.safetensors"), weights)).unwrap();
    let text = String::from_utf8_lossy(bytes);
    let fields = ["network", "domains", "state"].into_iter().zip(text.lines());
    let fields = fields.chain([("format", "u2seg 1")]);
    let metadata = fields.map(|(name, json)| (name.to_string(), json.to_string())).collect();
    let file = folder.join("model.safetensors");
    write_tensors(&file, &tensors, metadata).unwrap();
    use_model(folder, &file);
    let _ = Checkpoint::read(&file);
}

fn use_model(folder: &Path, file: &Path) {
    let Ok(model) = Model::read(file) else { return };
    assert!(model.weights.values().all(|tensor| tensor.values.iter().all(|v| v.is_finite())));
    part_counts(&model.network).unwrap();
    model.domains.iter().take(4).for_each(use_plan);
    for (index, plan) in model.domains.iter().enumerate().take(4) {
        assert_eq!(model.domain(Some(&plan.name)).unwrap(), index);
        let one = model.export(index).unwrap();
        let again = folder.join("one.safetensors");
        one.write(&again).unwrap();
        assert_eq!(Model::read(&again).unwrap(), one);
        let _ = (model.merge(&one), one.merge(&model));
    }
}

/// A checkpoint, without a network to go on with.
fn checkpoint(folder: &Path, bytes: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::read(&put(folder.join("last.safetensors"), bytes)) {
        assert!(checkpoint.steps() <= 1 << 53);
    }
}

/// A state dict of the published network, to a plan that fits one of the seeds.
fn import_state(folder: &Path, bytes: &[u8]) {
    let path = put(folder.join("state.safetensors"), bytes);
    let Ok((tensors, _)) = read_tensors(&path) else { return };
    let plan = serde_json::from_str(
        r#"{"name": "Toy", "channels": 1, "classes": ["background", "a"], "spacing": [1, 1, 1],
        "patch": [4, 4, 4], "pools": [0, 0, 0], "batch": 1, "normalisation": {"kind": "z_score"}}"#,
    );
    if let Ok(model) = import(&path, tensors, vec![plan.unwrap()]) {
        part_counts(&model.network).unwrap();
    }
}

/// Records that the program keeps beside its runs: the variants of kernels, and scores.
fn records(folder: &Path, bytes: &[u8]) {
    let path = put(folder.join("record.json"), bytes);
    if let Ok(record) = read_json::<Record>(&path, "variants", "Restore it.") {
        record.write(&path).unwrap();
        assert_eq!(read_json::<Record>(&path, "variants", "Restore it.").unwrap(), record);
    }
    if let Ok(scores) = summary::Summary::read(&path) {
        scores.foreground_mean_of_occurring();
        let again = summary::Summary::new(scores.metric_per_case.clone());
        again.write(&path).unwrap();
        summary::Summary::read(&path).unwrap();
    }
}

/// What is kept of the fixture's first case, in a store of its own.
struct Kept {
    /// Files of the store, in order.
    files: Vec<PathBuf>,
    root: PathBuf,
    image: Vec<f32>,
}

fn recipe(dataset: &Dataset) -> Recipe {
    let (normalisation, resampling) = (Normalisation::ZScore, Resampling::NearestAcross);
    Recipe { spacing: [1.0; 3], normalisation, resampling, labels: dataset.labels.clone() }
}

fn prepared_case(root: &Path) -> (StoredCase, Vec<Summary>) {
    let dataset = Dataset::open(fixture()).unwrap();
    let store = Arc::new(Store::open(&Place::Folder(root.into()), 1 << 30).unwrap());
    let cohort = Cohort::new(store, dataset.clone());
    let cases = [&dataset.cases[0]];
    let mut tell = |_: &_| Ok(());
    let summaries = cohort.summaries(&cases, &mut tell).unwrap();
    let mut found = cohort.prepared(&cases, &recipe(&dataset), &mut tell).unwrap();
    (found.remove(0), summaries)
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        put(fixture().join("dataset.json"), DESCRIPTION.as_bytes());
        let root = tempfile::tempdir().unwrap().keep();
        let (case, _) = prepared_case(&root);
        let image = case.read(VoxelBox::whole(case.facts().shape)).unwrap().image;
        let mut files = Vec::new();
        list(&root, &root, &mut files);
        files.retain(|file| !file.ends_with("lock") && !file.starts_with("prepared/users"));
        files.sort();
        Kept { files, root, image }
    })
}

fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        match entry.unwrap().path() {
            inner if inner.is_dir() => list(root, &inner, files),
            file => files.push(file.strip_prefix(root).unwrap().to_path_buf()),
        }
    }
}

/// A store of prepared cases with a damaged file. The first byte says which file it is; of the others each three say where
/// how much is added to a byte, or, with an odd first one, where the file ends.
fn prepared(folder: &Path, bytes: &[u8]) {
    let kept = kept();
    let Some((which, changes)) = bytes.split_first() else { return };
    let damaged = &kept.files[usize::from(*which) % kept.files.len()];
    for file in &kept.files {
        let (from, to) = (kept.root.join(file), folder.join(file));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        match file == damaged {
            true => drop(put(to, &change(std::fs::read(from).unwrap(), changes))),
            false => std::fs::hard_link(from, to).unwrap(),
        }
    }
    // whatever was damaged is made anew
    let (case, _) = prepared_case(folder);
    assert!(case.read(VoxelBox::whole(case.facts().shape)).unwrap().image == kept.image);
}

fn change(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for [high, low, by] in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([*high, *low])) / 2;
        let at = at % bytes.len().max(1);
        if low % 2 == 1 && by % 4 == 0 {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte = byte.wrapping_add(*by);
        }
    }
    bytes
}
