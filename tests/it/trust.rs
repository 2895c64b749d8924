//! Nothing is lost: runs that are killed, signalled, run into a full disk or find their checkpoint damaged go on to the same end.
//! `scripts/kills.py` does the same some hundred times over all kinds of runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use u2seg::low_level::run::Runs;

use crate::common::program::*;

/// A dataset in a folder of its own, and flags of short runs on it.
struct Bench {
    folder: tempfile::TempDir,
    data: PathBuf,
}

const SHORT: [&str; 10] =
    ["--base", "4", "--batch", "1", "--tune", "off", "--steps", "10", "--checkpoint-every", "4"];

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("A");
        dataset(&data, "A", 3, 90.0);
        Self { folder, data }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that begins a run.
    fn begin(&self, run: &Path, more: &[&str]) -> Vec<String> {
        let kept = SHORT.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten().copied();
        train(&[&self.data], run, &kept.chain(more.iter().copied()).collect::<Vec<_>>())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn state(file: &Path) -> serde_json::Value {
    let (_, metadata) = u2seg::low_level::net::read_tensors(file).unwrap();
    serde_json::from_str(&metadata["state"]).unwrap()
}

/// Flips a bit in the middle of a file.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let bench = Bench::new();
    let run = bench.at("run");
    succeed(&strs(&bench.begin(&run, &[])));
    let at = |name: &str| run.join(name);
    let (model, steps) = (std::fs::read(at("model.safetensors")).unwrap(), log(&run));
    let whole = std::fs::read(at("last.safetensors")).unwrap();
    assert_eq!(state(&at("previous.safetensors"))["step"], 8);
    let go_on = ["train", "--continue", "--out", path(&run)];
    for torn in [false, true] {
        match torn {
            true => std::fs::write(at("last.safetensors"), &whole[..whole.len() / 2]).unwrap(),
            false => damage(&at("last.safetensors")),
        }
        let output = u2seg(&go_on);
        let stderr = text(&output.stderr);
        assert!(output.status.success() && stderr.contains("of step 8"), "{stderr}");
        assert!(stderr.contains("last.safetensors: found") && at("damaged.safetensors").exists());
        assert!(std::fs::read(at("model.safetensors")).unwrap() == model, "another model");
        assert_eq!(log(&run), steps);
        // the one before is a whole one again
        assert_eq!(state(&at("previous.safetensors"))["step"], 8);
    }
    // a crash between the two names
    std::fs::remove_file(at("last.safetensors")).unwrap();
    let refused = fail(&strs(&bench.begin(&run, &[])));
    assert!(refused.contains("a run that was begun before"), "{refused}");
    succeed(&go_on);
    assert!(std::fs::read(at("model.safetensors")).unwrap() == model, "another model");
    // as an earlier version wrote it
    let bytes = std::fs::read(at("previous.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let fields = header.metadata().clone().unwrap().into_iter();
    let fields: HashMap<_, _> = fields.filter(|(key, _)| !key.starts_with("check")).collect();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    std::fs::write(at("last.safetensors"), safetensors::serialize(tensors, Some(fields)).unwrap())
        .unwrap();
    succeed(&go_on);
    assert!(std::fs::read(at("model.safetensors")).unwrap() == model, "another model");
    // nothing that can be read is said, and nothing is written
    for file in ["last.safetensors", "previous.safetensors"] {
        let bytes = std::fs::read(at(file)).unwrap();
        std::fs::write(at(file), &bytes[..bytes.len() - 1]).unwrap();
    }
    let before = names(&run);
    let message = fail(&go_on);
    assert!(message.contains("no checkpoint that can be read"), "{message}");
    assert_eq!(names(&run), before);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_has_one_owner_and_says_who() {
    let bench = Bench::new();
    let run = bench.at("run");
    let mut plan = vec!["plan", "--data", path(&bench.data), "--out", path(&run)];
    plan.extend(["--steps", "4", "--base", "4", "--patch", "16,16,16", "--batch", "1"]);
    succeed(&plan);
    let owner = Runs::open(&run).unwrap();
    let process = format!("a run that process {}", std::process::id());
    let go_on = ["train", "--continue", "--out", path(&run), "--checkpoint-every", "2"];
    for command in [&go_on[..], &plan] {
        let message = fail(command);
        assert!(message.contains(&process) && message.contains("since "), "{message}");
    }
    let list = run.join("list.txt");
    let message = fail(&["verify", "--data", path(&bench.data), "--fix-list", path(&list)]);
    assert!(message.contains(&process), "{message}");
    drop(owner);
    // what a killed process left of its lock and its files is in nobody's way
    std::fs::write(run.join("lock"), b"").unwrap();
    std::fs::write(run.join(".u2seg-Aside-0123456789.tmp"), b"half").unwrap();
    std::fs::write(run.join("mine.tmp"), b"kept").unwrap();
    succeed(&go_on);
    let left = names(&run);
    assert!(left.contains(&"mine.tmp".to_string()), "{left:?}");
    assert!(!left.iter().any(|name| name == "lock" || name.starts_with('.')), "{left:?}");
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("checkpoint_every = 50\ncheckpoint_minutes = 10.0"), "{config}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_begun_anew_has_a_log_of_its_own() {
    let bench = Bench::new();
    let run = bench.at("run");
    succeed(&strs(&bench.begin(&run, &["--seed", "1"])));
    let first = log(&run);
    for file in ["last.safetensors", "previous.safetensors"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    succeed(&strs(&bench.begin(&run, &["--seed", "2"])));
    let second = log(&run);
    assert_eq!(second.len(), first.len());
    assert_ne!(second, first);
    let events = names(&run).into_iter().filter(|name| name.starts_with("events.out"));
    assert_eq!(events.count(), 1);
    // flags that a run which goes on would ignore are refused
    let message =
        fail(&["train", "--continue", "--out", path(&run), "--steps", "20", "--lr", "0.1"]);
    assert!(message.contains("--lr: found"), "{message}");
    let message = fail(&["train", "--continue", "--out", path(&run), "--tune", "full"]);
    assert!(message.contains("--tune: found"), "{message}");
}

/// Whether the tests were started to ignore a signal, as behind `nohup`: what they start ignores it, too.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
    set >> (signal - 1) & 1 == 1
}

#[cfg(unix)]
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn signals_save_and_name_the_command_that_goes_on() {
    let bench = Bench::new();
    let run = bench.at("my run");
    let long = ["--steps", "1000000", "--checkpoint-every", "1000000"];
    let mut first = bench.begin(&run, &long);
    first.extend(["--cache".to_string(), path(&bench.at("cache")).to_string()]);
    let again = ["train", "--continue", "--out", path(&run)].map(String::from).to_vec();
    let mut before = 0;
    for (signal, code, args) in [("TERM", 143, &first), ("INT", 130, &again), ("HUP", 129, &again)]
    {
        if is_ignored(code - 128) {
            continue;
        }
        let logged = || {
            let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
            text.lines().count()
        };
        let lines = logged();
        let mut child = command(&strs(args)).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let start = std::time::Instant::now();
        while logged() <= lines {
            assert!(start.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut kill = std::process::Command::new("kill");
        kill.args([format!("-{signal}"), child.id().to_string()]);
        assert!(kill.status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        let step = state(&run.join("last.safetensors"))["step"].as_u64().unwrap();
        assert!(step > before && log(&run).last().unwrap().0 <= step);
        let told = format!(
            "SIG{signal}: stopped after step {step}, which is saved. Go on with: u2seg train --continue --out '{}'",
            run.display()
        );
        assert!(stderr.contains(&told), "{stderr}");
        assert!(!run.join("lock").exists());
        before = step;
    }
}

/// The library of faults, built; none where there is no compiler or no such system.
#[cfg(target_os = "linux")]
fn faults(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/faults.c");
    let library = folder.join("faults.so");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    cc.status().is_ok_and(|status| status.success()).then_some(library)
}

#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn kills_and_full_disks_lose_nothing() {
    let bench = Bench::new();
    let Some(library) = faults(bench.folder.path()) else { return };
    let more = ["--hold-out", "case_02", "--validate-every", "3"];
    let faulty = |run: &Path, fault: &str| {
        let mut command = command(&strs(&bench.begin(run, &more)));
        command.env("LD_PRELOAD", &library).env("U2SEG_FAULT", fault);
        command.env("TMPDIR", bench.folder.path()).env("U2SEG_FAULT_UNDER", run);
        command.output().unwrap()
    };
    let left = |run: &Path| {
        assert!(!names(run).iter().any(|name| name.starts_with('.') || name == "lock"));
        let summary = std::fs::read_to_string(run.join("validation/A/summary.json")).unwrap();
        let files = ["model.safetensors", "best.safetensors", "validation/A/case_02.nii.gz"];
        let files = files.map(|file| std::fs::read(run.join(file)).unwrap());
        (log(run), summary.replace(path(run), "RUN"), files)
    };
    let (whole, count) = (bench.at("whole"), bench.at("count"));
    let output = faulty(&whole, &format!("count:{}", count.display()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let calls: u64 = std::fs::read_to_string(&count).unwrap().trim().parse().unwrap();
    let expected = left(&whole);
    for (fault, share, codes) in [
        ("kill", 0.1, [None, None]),
        ("kill", 0.55, [None, None]),
        ("term", 0.4, [Some(143), Some(143)]),
        ("int", 0.95, [Some(130), Some(0)]),
        ("full", 0.05, [Some(1), Some(1)]),
        ("full", 0.5, [Some(1), Some(1)]),
        ("once", 0.8, [Some(1), Some(1)]),
    ] {
        let run = bench.at(&format!("{fault} {share}"));
        let fault = format!("{fault}:{}", (calls as f64 * share) as u64);
        let output = faulty(&run, &fault);
        let stderr = text(&output.stderr);
        assert!(codes.contains(&output.status.code()), "{fault}: {:?} {stderr}", output.status);
        assert!(!stderr.contains("panicked"), "{stderr}");
        let begun = run.join("config.toml").exists() && !run.join("planning").exists();
        let go_on = ["train", "--continue", "--out", path(&run)].map(String::from).to_vec();
        succeed(&strs(&if begun { go_on } else { bench.begin(&run, &more) }));
        assert!(left(&run) == expected, "{fault}: another end than undisturbed");
    }
}
