//! What a user reads on the terminal: help, notes, the words of results.

use crate::common::program::{SMALL, command, dataset, path, succeed, text};

/// Commands as `--help` lists them.
fn commands() -> Vec<String> {
    let help = succeed(&["--help"]);
    let listed = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(String::from).collect()
}

#[test]
fn every_command_has_examples_and_lines_that_fit() {
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    for command in &commands {
        for help in ["-h", "--help"] {
            let told = succeed(&[command, help]);
            assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
            assert!(!told.contains("dapter:"), "{told}");
            // `models` has one thing to say
            let examples = told.split("Examples:\n").nth(1);
            let count = examples.map_or(0, |lines| lines.matches("u2seg ").count());
            assert!(count >= 2, "{command} {help}: {told}");
        }
    }
    let train = succeed(&["train", "-h"]);
    let headings = ["Data:", "Network:", "Training:", "Memory:", "Device:", "Output:"];
    let at: Vec<usize> = headings.iter().map(|heading| train.find(heading).unwrap()).collect();
    assert!(at.is_sorted(), "{train}");
}

#[test]
fn a_version_names_the_commit_and_wgpu() {
    let version = succeed(&["--version"]);
    let short = succeed(&["-V"]);
    assert_eq!(short.trim(), concat!("u2seg ", env!("CARGO_PKG_VERSION")));
    assert!(version.starts_with(short.trim()), "{version}");
    assert!(version.contains("\ncommit ") && version.contains("\nwgpu 30"), "{version}");
}

#[test]
fn shells_and_man_get_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    let written = succeed(&["man", path(&pages)]);
    assert_eq!(written.lines().count(), commands().len() + 1, "{written}");
    let train = std::fs::read_to_string(pages.join("u2seg-train.1")).unwrap();
    assert!(train.contains(".TH u2seg-train 1") && train.contains("hold\\-out"), "{train}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeed(&["completions", shell]);
        assert!(script.contains("predict"), "{shell}");
    }
}

#[test]
fn models_tell_of_themselves() {
    let told = succeed(&["info", "hippocampus"]);
    for part in [
        "Anterior, Posterior",
        "1×1×1 mm",
        "0.878 on 20 held-out cases",
        "1,500 steps, by u2seg",
        "107,765 parameters",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("pointwise convolutions"), "{told}");
    assert!(succeed(&["info", "hippocampus", "--parameters"]).contains("pointwise convolutions"));
    let json: serde_json::Value =
        serde_json::from_str(&succeed(&["info", "hippocampus", "--json"])).unwrap();
    assert_eq!(json["domains"][0]["name"], "Hippocampus");
    assert_eq!(json["total"], 107_765);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_ends_with_what_came_of_it_and_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("Balls"), folder.path().join("run"));
    dataset(&data, "Balls", 4, 90.0);
    let train = |out: &std::path::Path, more: &[&str]| {
        let args = ["train", path(&data), "-o", path(out), "--steps", "3", "--hold-out", "1"];
        let mut program = command(&[&args[..], &SMALL[..], more].concat());
        // without a desktop session Mesa's layers have nothing to say either
        program.env_remove("XDG_RUNTIME_DIR").env_remove("NODEVICE_SELECT");
        let output = program.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (out, err) = train(&run, &[]);
    let next = format!("next     u2seg predict -m {} -i IMAGES -o MASKS", path(&run));
    for part in ["trained  3 steps", "over 1 held-out case of Balls", &next, "report   "] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!err.contains('\u{1b}'), "{err:?}");
    let model = run.join("model.safetensors");
    assert!(out.lines().any(|line| line == path(&model)), "{out}");
    let told = succeed(&["info", path(&run)]);
    for part in [
        "MR, 1 channel",
        "classes   ball",
        "on 3 cases, 3 steps, by u2seg",
        "on 1 held-out case: ball",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // results alone
    let (out, err) = train(&folder.path().join("quiet"), &["-q"]);
    assert!(err.is_empty(), "{err:?}");
    assert!(out.contains("quiet/model.safetensors"), "{out}");
    // details
    let (_, err) = train(&folder.path().join("verbose"), &["-v"]);
    assert!(err.contains("info: u2seg::"), "{err}");
}
