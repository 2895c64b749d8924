//! Hostile input: each target of `targets` takes what was made to break it in a process of its own, whose memory and time are
//! bounded. `U2SEG_HOSTILE_CASES` says how many cases (1,000); `scripts/fuzz.sh` runs more, and libFuzzer.

mod by_hand;
mod mutate;
mod targets;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::ALLOCATOR;

/// Longest that a case may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of memory that a case may take, and how many for each byte of its input.
const MEMORY: usize = 512 << 20;
const SHARE: usize = 8;

const TARGET: &str = "U2SEG_HOSTILE_TARGET";
const CASES: &str = "U2SEG_HOSTILE_CASES";
const FILE: &str = "U2SEG_HOSTILE_FILE";

fn cases() -> u32 {
    std::env::var(CASES).ok().and_then(|count| count.parse().ok()).unwrap_or(1000)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs a target in a process of its own, and says how it went.
fn survive(target: &str) {
    // in memory where there is such a place: no disk is waited for
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let file = folder.path().join("case");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "hostile::one_target", "--ignored", "--nocapture"]);
    child.env(TARGET, target).env(FILE, &file).env("TMPDIR", folder.path()).env("RUST_LOG", "off");
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let counted = told.lines().find(|line| line.starts_with(target));
    println!("{}", counted.unwrap_or("nothing was counted"));
    if output.status.success() && counted.is_some() {
        return;
    }
    let kept = std::env::temp_dir().join(format!("u2seg-hostile-{target}"));
    let kept = std::fs::copy(&file, &kept).map_or(file, |_| kept);
    let stderr = String::from_utf8_lossy(&output.stderr);
    panic!("{target}: {}; the case is {}\n{told}\n{stderr}", output.status, kept.display());
}

macro_rules! survives {
    ($($name:ident: $target:literal,)*) => {
        $(#[test]
        fn $name() {
            survive($target);
        })*

        #[test]
        fn every_target_has_a_test_and_seeds_that_are_read() {
            let tested = [$($target),*];
            assert!(targets::TARGETS.iter().map(|(name, _)| *name).eq(tested));
            for target in tested {
                let seeds = seeds(target);
                assert!(!seeds.is_empty() && seeds.iter().all(|seed| seed.len() < 4096), "{target}");
            }
        }
    };
}

survives! {
    images_are_read_or_refused: "nifti",
    packed_images_are_read_or_refused: "packed",
    pairs_are_read_or_refused: "pair",
    nrrd_is_read_or_refused: "nrrd",
    metaimages_are_read_or_refused: "metaimage",
    dicom_is_read_or_refused: "dicom",
    descriptions_are_read_or_refused: "dataset",
    folds_are_read_or_refused: "splits",
    plans_are_read_or_refused: "plan",
    settings_are_read_or_refused: "config",
    models_are_read_or_refused: "model",
    metadata_is_read_or_refused: "metadata",
    checkpoints_are_read_or_refused: "checkpoint",
    state_dicts_are_read_or_refused: "import",
    records_are_read_or_refused: "records",
    damaged_cases_are_made_anew: "prepared",
}

/// Milliseconds since the start at which a case began; 0 while none runs.
type Clock = Arc<AtomicU64>;

/// Ends the process where a case takes too long.
fn watch(start: Instant, clock: Clock) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let begun = Duration::from_millis(clock.load(Ordering::SeqCst));
            if !begun.is_zero() && start.elapsed() > begun + PATIENCE {
                eprintln!("a case takes longer than {PATIENCE:?}");
                std::process::abort();
            }
        }
    });
}

/// What cases took at most.
#[derive(Default)]
struct Most {
    time: Duration,
    memory: usize,
}

/// Takes one input: writes it down first, for whoever finds it as the last of a process that died.
fn take(target: &str, bytes: &[u8], most: &Mutex<Most>) -> Result<(), TestCaseError> {
    if let Some(file) = std::env::var_os(FILE) {
        std::fs::write(file, bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    }
    let (before, start) = (ALLOCATOR.allocated(), Instant::now());
    ALLOCATOR.set_limit(before + MEMORY + SHARE * bytes.len()).unwrap();
    let panics = std::panic::catch_unwind(|| targets::run(target, bytes)).is_err();
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    let mut most = most.lock().unwrap();
    most.time = most.time.max(start.elapsed());
    most.memory = ALLOCATOR.max_allocated();
    if panics { Err(TestCaseError::fail("panicked")) } else { Ok(()) }
}

#[test]
#[ignore = "the other tests of this file run it in processes of their own"]
fn one_target() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let (most, clock, start) = (Mutex::default(), Clock::default(), Instant::now());
    watch(start, clock.clone());
    let run = |bytes: &[u8]| {
        clock.store((start.elapsed().as_millis() as u64).max(1), Ordering::SeqCst);
        let outcome = take(&target, bytes, &most);
        clock.store(0, Ordering::SeqCst);
        outcome
    };
    let seeds = seeds(&target);
    seeds.iter().for_each(|seed| run(seed).unwrap());
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome =
        TestRunner::new_with_rng(config, rng).run(&mutate::files(seeds), |bytes| run(&bytes));
    outcome.unwrap_or_else(|e| panic!("{e}"));
    let Most { time, memory } = most.into_inner().unwrap();
    let (count, most) = (cases(), memory >> 20);
    println!("{target}: {count} cases, the longest {time:.1?}, at most {most} MiB of memory");
}
