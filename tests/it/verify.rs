//! `u2seg verify`, and what a closed pipe does.

use std::io::Read;
use std::process::Stdio;

use crate::common::program::*;
use crate::common::volumes::{write_image, write_mask};
use u2seg::low_level::imaging::Grid;

#[test]
fn every_case_is_described_and_what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 4, 90.0);
    let verify = ["verify", "--data", path(&data)];
    let stdout = succeed(&verify);
    assert!(stdout.contains("4 cases, 0 with errors, 0 warnings"), "{stdout}");
    assert!(stdout.contains("case_03: 18×22×20 voxels"), "{stdout}");
    // a label on another grid, an empty one, a constant image, a coarse one, a file that is left over
    let voxels: usize = SHAPE.iter().product();
    let fine = Grid::ras(SHAPE, [1.0; 3]);
    let (images, labels) = (data.join("imagesTr"), data.join("labelsTr"));
    let other = Grid::ras([4, 5, 6], [1.0; 3]);
    write_mask(&labels.join("case_00.nii.gz"), &[0; 120], &other).unwrap();
    write_mask(&labels.join("case_01.nii.gz"), &vec![0; voxels], &fine).unwrap();
    write_image(&images.join("case_02.nii.gz"), &vec![7.0; voxels], &fine).unwrap();
    let coarse = Grid::ras(SHAPE, [5.0, 1.0, 1.0]);
    let (image, label) = case(4, 90.0);
    write_image(&images.join("case_03.nii.gz"), &image, &coarse).unwrap();
    write_mask(&labels.join("case_03.nii.gz"), &label, &coarse).unwrap();
    write_mask(&labels.join("case_04.nii.gz"), &label, &coarse).unwrap();
    let output = u2seg(&verify);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stderr.contains("1 of 4 cases with errors"), "{stderr}");
    for part in [
        "case_00: error: ",
        "shape [4, 5, 6]",
        "nothing is labelled",
        "channel MR is 7 everywhere",
        "spacing [5.000, 1.000, 1.000] mm",
        "case_04.nii.gz belongs to no case",
    ] {
        assert!(stdout.contains(part), "{part:?} is missing in: {stdout}");
    }
    let json = u2seg(&[&verify[..], &["--json"]].concat()).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json[0]["cases"].as_array().unwrap().len(), 4);
    assert!(json[0]["cases"][0]["contents"].is_null());
    assert_eq!(json[0]["cases"][2]["contents"]["range"][0][0], 7.0);
}

#[test]
fn images_behind_a_broken_one_are_looked_at_and_json_is_one_document() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 2, 90.0);
    let image = data.join("imagesTr/case_00.nii.gz");
    let broken = folder.path().join("broken.nii");
    std::fs::write(&broken, "no image").unwrap();
    let together = ["verify", path(&broken), path(&image), path(&data)];
    let output = u2seg(&together);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stderr.contains("1 of 2 images that cannot be used"), "{stderr}");
    for part in ["broken.nii: error: ", "case_00.nii.gz: 18×22×20 voxels", "2 cases, 0 with errors"]
    {
        assert!(stdout.contains(part), "{part:?} is missing in: {stdout}");
    }
    let json = u2seg(&[&together[..], &["--json"]].concat()).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert!(json[0]["error"].as_str().unwrap().contains("broken.nii"));
    assert_eq!(json[1]["shape"], serde_json::json!(SHAPE));
    assert_eq!(json[2]["cases"].as_array().unwrap().len(), 2);
    // alone its error says it all
    assert!(fail(&["verify", path(&broken)]).contains("broken.nii"));
}

/// Runs the program with nobody to read its output.
fn unread(args: &[&str]) {
    let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    unread(&["info", "--published"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_benchmark_whose_reader_has_had_enough_is_no_failure() {
    unread(&["bench", "--dry-run", "--config", "hippo"]);
}
