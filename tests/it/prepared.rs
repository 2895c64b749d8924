//! Prepared cases on disk: what is read of the data, what stays the same whatever is kept, and what processes do to each other.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::program::{command, dataset, fail, path, strs, succeed, text, train, weights};
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::dataset::prepared::{
    CaseData, Cohort, Kept, Place, Points, Progress, Recipe, Store, StoredCase,
};
use u2seg::low_level::imaging::{self, Normalisation, Resampling, VoxelBox};

const SPACING: [f64; 3] = [1.25, 1.0, 0.8];

/// What the program says of a command that succeeds, with everything that it logs.
fn told(args: &[&str]) -> String {
    let output = command(args).env("RUST_LOG", "u2seg=debug").output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

/// How often the program read the files of a case.
fn reads(told: &str) -> usize {
    told.matches("its files are read").count()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            inner if inner.is_dir() => files(&inner, found),
            file => found.push(file),
        }
    }
}

/// Files of a cache whose path has a part.
fn kept(cache: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(cache, &mut found);
    found.retain(|file| file.components().any(|name| name.as_os_str() == part));
    found
}

/// Makes all files below a folder an hour old: what changed a moment ago is never taken as known.
fn age(folder: &Path) {
    let mut found = Vec::new();
    files(folder, &mut found);
    for file in found {
        let past = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().append(true).open(file).unwrap().set_modified(past).unwrap();
    }
}

fn recipe(of: &Dataset) -> Recipe {
    let labels = of.labels.clone();
    let (normalisation, resampling) = (Normalisation::ZScore, Resampling::NearestAcross);
    Recipe { spacing: SPACING, normalisation, resampling, labels }
}

struct Data {
    folder: tempfile::TempDir,
    dataset: Dataset,
}

impl Data {
    fn new(cases: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let balls = folder.path().join("Balls");
        dataset(&balls, "Balls", cases, 90.0);
        age(&balls);
        let dataset = Dataset::open(folder.path().join("Balls")).unwrap();
        Self { folder, dataset }
    }

    fn store(&self, size: u64) -> Arc<Store> {
        let place = Place::Folder(self.folder.path().join("cache"));
        Arc::new(Store::open(&place, size).unwrap())
    }

    /// Those of some cases, and how many had to be made.
    fn prepared(
        &self,
        store: &Arc<Store>,
        cases: std::ops::Range<usize>,
    ) -> (Vec<StoredCase>, usize) {
        let cohort = Cohort::new(store.clone(), self.dataset.clone());
        let cases: Vec<_> = self.dataset.cases[cases].iter().collect();
        let mut made = 0;
        let mut tell = |progress: &Progress| {
            made = progress.total;
            Ok(())
        };
        let prepared = cohort.prepared(&cases, &recipe(&self.dataset), &mut tell).unwrap();
        (prepared, made)
    }

    /// A case as it is prepared in memory.
    fn expected(&self, index: usize) -> imaging::Prepared {
        let (image, mut label) = self.dataset.load(&self.dataset.cases[index]).unwrap();
        let Recipe { spacing, normalisation, resampling, labels } = recipe(&self.dataset);
        labels.encode(label.as_mut_slice());
        imaging::prepare(&image, Some(&label), spacing, &normalisation, resampling).unwrap()
    }
}

fn compare(stored: &StoredCase, expected: &imaging::Prepared) {
    assert_eq!(*stored.facts(), *expected.facts());
    let whole = VoxelBox::whole(expected.shape);
    let low = expected.shape.map(|n| n / 3);
    for bounds in [whole, VoxelBox { low, high: low.map(|n| n + 5) }] {
        let [read, wanted] =
            [stored as &dyn CaseData, expected].map(|case| case.read(bounds).unwrap());
        let bits = |image: &[f32]| image.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&read.image) == bits(&wanted.image) && read.label == wanted.label);
    }
    for index in 0..expected.foreground[0].len() {
        let point = stored.point(Points::Class(0), index).unwrap();
        assert_eq!(point, expected.foreground[0][index], "point {index}");
    }
    assert!(stored.point(Points::Annotated, 0).is_err());
}

#[test]
fn a_stored_case_is_the_prepared_one_bit_for_bit() {
    let data = Data::new(2);
    let store = data.store(1 << 40);
    let (cases, made) = data.prepared(&store, 0..2);
    assert_eq!(made, 2);
    cases.iter().enumerate().for_each(|(at, case)| compare(case, &data.expected(at)));
    // found again, by this process and by another one
    assert_eq!(data.prepared(&store, 0..2).1, 0);
    assert_eq!(data.prepared(&data.store(1 << 40), 0..2).1, 0);
}

#[test]
fn whatever_is_damaged_is_made_anew() {
    let data = Data::new(1);
    let store = data.store(1 << 40);
    let (cases, _) = data.prepared(&store, 0..1);
    let expected = data.expected(0);
    let cache = data.folder.path().join("cache");
    for file in kept(&cache, "cases") {
        let whole = std::fs::read(&file).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 0x40;
        for bytes in [Some(changed), Some(whole[..whole.len() / 2].to_vec()), None] {
            match &bytes {
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            // while it is used, and at the next start
            compare(&cases[0], &expected);
            compare(&data.prepared(&store, 0..1).0[0], &expected);
        }
    }
    // a folder that somebody removed
    std::fs::remove_dir_all(cache.join("prepared/cases")).unwrap();
    std::fs::create_dir(cache.join("prepared/cases")).unwrap();
    compare(&cases[0], &expected);
}

#[test]
fn the_least_recently_used_leaves_and_never_what_is_used() {
    let data = Data::new(4);
    let one = {
        let store = data.store(1 << 40);
        data.prepared(&store, 0..1).0[0].bytes()
    };
    let room = one * 5 / 2;
    let unused = |store: &Store, hours: u64| {
        let past = SystemTime::now() - Duration::from_secs(3600 * hours);
        for case in store.list().unwrap().iter().filter(|case| !case.in_use) {
            let file = store.folder().join("cases").join(case.key.as_str()).join("zarr.json");
            std::fs::File::options().append(true).open(file).unwrap().set_modified(past).unwrap();
        }
    };
    let names = |store: &Store| {
        let mut names: Vec<String> =
            store.list().unwrap().into_iter().map(|case: Kept| case.origin.unwrap().1).collect();
        names.sort();
        names
    };
    unused(&data.store(room), 5);
    {
        let store = data.store(room);
        data.prepared(&store, 1..2);
    }
    let user = data.store(room);
    unused(&user, 3);
    // a third case: the oldest leaves
    data.prepared(&user, 2..3);
    assert_eq!(names(&user), ["case_01", "case_02"]);
    // another process needs two more, and must not take the one that is used
    {
        let other = data.store(room);
        let (cases, _) = data.prepared(&other, 0..2);
        assert_eq!(names(&other), ["case_00", "case_01", "case_02"]);
        let in_use = other.list().unwrap().iter().filter(|case| case.in_use).count();
        assert_eq!(in_use, 3);
        compare(&cases[0], &data.expected(0));
    }
    // it ended: only what the first one uses stays
    let [gone, left] = user.clear().unwrap();
    assert!(gone > one && left < room, "{gone} {left}");
    assert_eq!(names(&user), ["case_02"]);
}

#[test]
fn half_made_cases_of_processes_that_died_go_away() {
    let data = Data::new(1);
    let store = data.store(1 << 40);
    let folder = store.folder().to_path_buf();
    std::fs::create_dir_all(folder.join("making/process-dead/case-x")).unwrap();
    std::fs::write(folder.join("making/process-dead/case-x/zarr.json"), b"{").unwrap();
    std::fs::write(folder.join("users/process-dead"), b"0123456789abcdef0123456789abcdef\n")
        .unwrap();
    std::fs::write(folder.join("users/process-dead.lock"), b"").unwrap();
    store.clear().unwrap();
    assert!(kept(&folder, "process-dead").is_empty());
    assert!(!folder.join("users/process-dead.lock").exists());
    // its own place is still there
    data.prepared(&store, 0..1);
    drop(store);
    assert!(kept(&folder, "users").is_empty() && kept(&folder, "making").is_empty());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn files_are_read_twice_in_their_life_and_the_patches_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 4, 90.0);
    let cache = folder.path().join("cache");
    let run = |name: &str| folder.path().join(name);
    let of = |name: &str, more: &[&str]| {
        let more = [&["--steps", "6", "--cache", path(&cache)], more].concat();
        told(&strs(&train(&[&data], &run(name), &more)))
    };
    // shapes and spacings, then preparing
    assert_eq!(reads(&of("cold", &[])), 8);
    assert_eq!(reads(&of("warm", &[])), 0);
    let none = train(&[&data], &run("none"), &["--steps", "6", "--cache", "none"]);
    succeed(&strs(&none));
    assert!(weights(&run("cold")) == weights(&run("warm")), "a warm cache changes weights");
    assert!(weights(&run("cold")) == weights(&run("none")), "no cache changes weights");
    // other networks and patches, a fold, which shares the plan of all, and what goes on
    assert_eq!(reads(&of("shared", &["--mode", "shared", "--patch", "8,16,16"])), 0);
    let fold = of("fold", &["--fold", "0"]);
    let validation = reads(&fold);
    assert!(validation <= 2, "{validation} readings where one case is scored");
    assert!(!fold.contains("prepared in"), "{fold}");
    let planned = ["plan", "--data", path(&data), "--json", "--cache", path(&cache)];
    let output = command(&planned).env("RUST_LOG", "u2seg=debug").output().unwrap();
    assert_eq!(reads(&text(&output.stderr)), 0);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = |what: &str| plan["machine"][what].as_u64().unwrap();
    let voxels = 4 * 18 * 22 * 20 * 5;
    assert!(bytes("prepared") > voxels / 4 && bytes("prepared") < 2 * bytes("disk"), "{plan}");
    assert!(bytes("host") > 64 << 20 && bytes("host") < 4 << 30, "{plan}");
    std::fs::remove_file(run("warm").join("last.safetensors")).unwrap();
    let warm = run("warm");
    let again = ["train", "--continue", "--out", path(&warm), "--cache", path(&cache)];
    assert_eq!(reads(&told(&again)), 0);
    // another spacing needs the files once more, another file alone
    assert_eq!(reads(&of("coarse", &["--spacing", "2,2,2"])), 4);
    let changed = data.join("imagesTr/case_01.nii.gz");
    std::fs::copy(data.join("imagesTr/case_02.nii.gz"), &changed).unwrap();
    assert_eq!(reads(&of("changed", &[])), 2);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn one_reading_serves_where_it_is_known_before_how_cases_are_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let cache = folder.path().join("cache");
    let more = ["--steps", "1", "--spacing", "1,1,1", "--cache", path(&cache)];
    assert_eq!(reads(&told(&strs(&train(&[&data], &folder.path().join("run"), &more)))), 3);
}

#[test]
fn cases_are_prepared_ahead_by_processes_that_may_be_killed_or_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 12, 90.0);
    let cache = folder.path().join("cache");
    let args = ["prepare", "--data", path(&data), "--cache", path(&cache)];
    for milliseconds in [5, 20, 40, 60, 80, 100, 130] {
        let mut child = command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // SIGKILL on Unix
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let start =
        || command(&args).env("RUST_LOG", "u2seg=debug").stderr(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let told = both.each_ref().map(|output| text(&output.stderr));
    assert!(both.iter().all(|output| output.status.success()), "{told:?}");
    assert!(!told.concat().contains("damaged"), "{told:?}");
    let last = told_of(&args);
    assert_eq!(reads(&last.1), 0);
    assert!(last.0.starts_with("Balls: 12 cases"), "{}", last.0);
    let listed = succeed(&["cache", "list", "--cache", path(&cache)]);
    assert!(listed.contains("Balls: 12 cases at"), "{listed}");
    succeed(&["cache", "clear", "--cache", path(&cache)]);
    assert!(kept(&cache, "cases").is_empty() && kept(&cache, "summaries").is_empty());
    assert!(kept(&cache, "making").is_empty() && kept(&cache, "users").is_empty());
}

/// What the program prints, and what it says beside.
fn told_of(args: &[&str]) -> (String, String) {
    let output = command(args).env("RUST_LOG", "u2seg=debug").output().unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_place_that_takes_no_cases_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 2, 90.0);
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let message = fail(&["prepare", "--data", path(&data), "--cache", path(&file)]);
    assert!(message.contains("--cache") && message.contains("file"), "{message}");
    // a case that cannot be read is told as ever, and the others stay prepared
    let cache = folder.path().join("cache");
    std::fs::write(data.join("imagesTr/case_01.nii.gz"), b"no image").unwrap();
    let message = fail(&["prepare", "--data", path(&data), "--cache", path(&cache)]);
    assert!(message.contains("case_01.nii.gz"), "{message}");
}
