//! Folds of a cross-validation that processes of their own train, scored together.

use serde_json::{Value, json};

use super::rig::*;
use crate::common::program::*;

/// Scores without the names of files, which say where a run lies.
fn scores(case: &Case, run: &str) -> Value {
    let file = format!("{run}/validation/D/summary.json");
    let mut json: Value = serde_json::from_slice(&case.bytes(&file)).unwrap();
    for each in json["metric_per_case"].as_array_mut().unwrap() {
        let file = each["prediction_file"].as_str().unwrap().to_string();
        each["prediction_file"] = file.split('/').next_back().unwrap().into();
    }
    json
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn folds_that_were_trained_apart_are_scored_as_those_of_one_call() {
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    let fold =
        |index: usize| format!("train --data . --out RUN/fold_{index} --fold {index} {QUICK}");
    let spawn = |args: String| {
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut command = command(&args);
        command.current_dir(case.0.path()).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    case.run("evaluate --folds RUN").said(1, &["RUN"]);
    // two at once
    let running = [0, 1].map(|index| spawn(fold(index)));
    running.into_iter().for_each(|mut process| assert!(process.wait().unwrap().success()));
    let parts = ["2 of 3 folds, without 2", "--allow-missing"];
    case.run("evaluate --folds RUN").said(1, &parts);
    assert!(!case.at("RUN/validation").exists());
    case.run("evaluate --folds RUN --allow-missing")
        .said(0, &["D, the folds that are there", "body"]);
    case.run(&fold(2)).said(0, &[]).not("all folds");
    case.run("evaluate --folds RUN").said(0, &["D, all folds", "body", "core"]);
    case.run(&format!("train --data . --out ALL --fold all {QUICK}")).said(0, &["D, all folds"]);
    assert_eq!(scores(&case, "RUN"), scores(&case, "ALL"));
    assert_eq!(scores(&case, "RUN")["metric_per_case"].as_array().unwrap().len(), 3);
    // going on with all of them is the other way
    std::fs::remove_dir_all(case.at("RUN/validation")).unwrap();
    case.run("train --continue --out RUN").said(0, &["D, all folds"]);
    assert_eq!(scores(&case, "RUN"), scores(&case, "ALL"));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn folds_that_do_not_belong_together_are_refused() {
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    case.run(&format!("train --data . --out RUN --fold all {QUICK}")).said(0, &[]);
    let evaluate = || case.run("evaluate --folds RUN");
    let config = String::from_utf8(case.bytes("RUN/fold_1/config.toml")).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        case.write("RUN/fold_1/config.toml", config.replace(from, to));
    };
    edited("seed = 0", "seed = 7");
    evaluate().said(1, &["fold_1", "seed = 7", "seed = 0, as RUN/fold_0 has"]);
    edited("index = 1", "index = 0");
    evaluate().said(1, &["fold_1: found fold 0; expected fold 1"]);
    // what says only how to compute may differ
    edited("log_every = ", "vram = 1000000000\nlog_every = 1");
    evaluate().said(0, &["other amounts of memory"]);
    case.write("RUN/fold_1/config.toml", &config);
    let summary = case.bytes("RUN/fold_2/validation/D/summary.json");
    std::fs::remove_file(case.at("RUN/fold_2/validation/D/summary.json")).unwrap();
    evaluate().said(1, &["fold_2: found a fold that is not at its end", "--continue"]);
    // the scores of another fold's case
    let other = case.bytes("RUN/fold_0/validation/D/summary.json");
    case.write("RUN/fold_2/validation/D/summary.json", other);
    evaluate().said(1, &["fold_2/validation/D/summary.json: found scores of case_"]);
    case.write("RUN/fold_2/validation/D/summary.json", summary);
    evaluate().said(0, &["D, all folds"]);
    // a case that came later
    case.image("imagesTr/case_3_0000.nii.gz");
    case.label("labelsTr/case_3.nii.gz");
    evaluate().said(1, &["3 of 4 folds"]);
    case.run("evaluate --folds RUN --allow-missing").said(1, &["scores of case_", "changed"]);
    case.run("evaluate --folds RUN/fold_0").said(1, &["no fold", "u2seg train"]);
    case.run("evaluate --folds nowhere").said(1, &["nowhere"]);
    case.run("evaluate --folds RUN -p a -g b").said(2, &["cannot be used with"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_is_one_process_s_at_a_time() {
    use u2seg::low_level::files::Lock;
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    let train = format!("train --data . --out RUN --fold 0 {QUICK}");
    let held = Lock::take(&case.at("RUN/lock")).unwrap().unwrap();
    let parts = ["RUN: found a run that another process is at", "choose another folder"];
    case.run(&train).said(1, &parts);
    case.run(&format!("plan --data . --out RUN {QUICK}")).said(1, &parts);
    // another fold is another run
    case.run(&train.replace("RUN --fold 0", "RUN/fold_1 --fold 1")).said(0, &[]);
    // the system frees the lock of a process that was killed, whose file stays
    drop(held);
    case.run(&train).said(0, &[]);
    let left = case.tree("RUN");
    assert!(left.iter().all(|file| !file.ends_with("lock")), "{left:?}");
}
