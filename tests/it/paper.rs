//! `scripts/train_models.sh --smoke`: every model of the paper on real images, tiny; stopped, gone on with, each part alone.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::common;
use crate::common::program::*;
use u2seg::low_level::net::{Model, part_counts};

fn script(out: &Path, more: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("sh");
    command.arg(root.join("scripts/train_models.sh")).arg(common::data_dir()).arg(out);
    command.arg("--smoke").args(more).env("U2SEG", env!("CARGO_BIN_EXE_u2seg"));
    if let Ok(device) = std::env::var("U2SEG_DEVICE") {
        command.env("FLAGS", format!("--device {device}"));
    }
    command
}

fn run(out: &Path, more: &[&str]) -> String {
    let output = script(out, more).output().unwrap();
    assert!(output.status.success(), "{more:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn changed(file: &Path) -> SystemTime {
    std::fs::metadata(file).and_then(|file| file.modified()).unwrap()
}

/// Kills a part and all that it started, once it has made a checkpoint.
fn kill(out: &Path, part: &str) {
    let mut command = script(out, &["--part", part]);
    let mut child =
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !out.join(part).join("last.safetensors").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint of {part}");
        assert!(child.try_wait().unwrap().is_none(), "{part} ended without a checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
    // its output ends when the last of them is gone
    child.wait_with_output().unwrap();
    assert!(!out.join(part).join("finished").exists(), "{part} was done before it was killed");
}

/// The rows of a table, each a list of cells.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The table has every network, task and class, with scores that may be, and the parameters that the files have.
fn check(table: &str, out: &Path, parts: &[&str]) {
    let rows = rows(table);
    let names: Vec<&str> = rows[2..].iter().map(|row| row[0]).collect();
    let rest = parts.iter().filter(|part| !part.starts_with("independent-")).copied();
    assert_eq!(names, ["independent"].into_iter().chain(rest).collect::<Vec<&str>>());
    // a mean and each class of every task, as far as a network has it
    let heads: BTreeSet<&str> = rows[0].iter().copied().collect();
    for head in ["Hippocampus", "Hippocampus Anterior", "MSLesion lesion", "SpinalCord cord"] {
        assert!(heads.contains(head), "{table}");
    }
    let [parameters, ratio] = ["parameters", "of independent"]
        .map(|head| rows[0].iter().position(|cell| *cell == head).unwrap());
    for row in &rows[2..] {
        let scores = row[1..parameters].iter().filter(|cell| !cell.is_empty());
        let scores: Vec<f64> = scores.map(|cell| cell.parse().unwrap()).collect();
        assert!(!scores.is_empty() && scores.iter().all(|dice| (0.0..=100.0).contains(dice)));
    }
    // the counts are those of the files
    let count = |cell: &str| cell.replace(['+', ',', ' '], "").parse::<usize>().unwrap();
    let of = |name: &str| rows[2..].iter().find(|row| row[0] == name).unwrap();
    let total = |part: &str| {
        let model = Model::read(&out.join(part).join("model.safetensors")).unwrap();
        part_counts(&model.network).unwrap().iter().map(|part| part.total()).sum::<usize>()
    };
    assert_eq!(count(of("shared")[parameters]), total("shared"));
    let single = parts.iter().filter(|part| part.starts_with("independent-"));
    assert_eq!(count(of("independent")[parameters]), single.map(|part| total(part)).sum::<usize>());
    let adapted = "adapted-universal-separable";
    assert_eq!(
        count(of(adapted)[parameters]),
        total(adapted) - total("universal-separable"),
        "what the new domain adds"
    );
    assert_eq!(of("independent")[ratio], "100.00 %");
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(not(bare_python), ignore = "no Python: set U2SEG_PYTHON")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_models_of_the_paper_come_in_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let listed = run(&out, &["--list"]);
    let parts: Vec<&str> = listed.lines().collect();
    assert_eq!(parts.len(), 9, "{listed}");
    // what is adapted wants its model first
    let refused = script(&out, &["--part", "adapted-shared"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("adapted-shared wants shared first"));
    // a part alone, holding out what the published splits hold out
    let splits = folder.path().join("splits.json");
    let fold = serde_json::json!({"fold0": {"train": ["cord_t2"], "val": ["cord_fake_lesion"]}});
    std::fs::write(&splits, serde_json::json!({"Task22_SpinalCord": fold}).to_string()).unwrap();
    let alone = "independent-Task22_SpinalCord";
    run(&out, &["--splits", path(&splits), "--part", alone]);
    assert!(out.join(alone).join("validation/SpinalCord/cord_fake_lesion.nii.gz").exists());
    let model = out.join(alone).join("model.safetensors");
    let made = changed(&model);
    kill(&out, "universal-series");
    // the others, and what was killed; what is finished stays
    let told = run(&out, &[]);
    assert_eq!(changed(&model), made);
    let table = std::fs::read_to_string(out.join("table.md")).unwrap();
    assert!(told.ends_with(&table), "{told}");
    assert_eq!(run(&out, &["--table"]), table);
    for part in &parts {
        assert!(out.join(part).join("finished").exists(), "{part}");
    }
    check(&table, &out, &parts);
}
