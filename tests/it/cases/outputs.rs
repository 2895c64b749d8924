//! Where results go: never over an input, never two to one place, never outside.

use serde_json::json;
use u2seg::low_level::imaging::read_image;

use super::rig::*;
use crate::common::program::*;

#[test]
fn case_01_an_output_replaces_an_input() {
    let case = Case::new();
    case.image("scans/s1.nii.gz");
    let before = case.bytes("scans/s1.nii.gz");
    let mut outputs = vec!["scans", "./scans/../scans", "scans/."];
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink("scans", case.at("link")).unwrap();
        outputs.push("link");
    }
    for output in outputs {
        let ran = case.run(&format!("predict -m ONE -i scans -o {output}"));
        ran.said(1, &["s1.nii.gz: found the input scans/s1.nii.gz", "Choose another -o"]);
        let file = format!("predict -m ONE -i scans/s1.nii.gz -o {output}");
        case.run(&file).said(1, &["found the input scans/s1.nii.gz"]);
        case.run(&format!("{file}/s1.nii.gz")).said(1, &["found the input scans/s1.nii.gz"]);
    }
    std::fs::hard_link(case.at("scans/s1.nii.gz"), case.at("other/s1.nii.gz")).unwrap();
    case.run("predict -m ONE -i scans -o other").said(1, &["other/s1.nii.gz: found the input"]);
    assert_eq!(case.bytes("scans/s1.nii.gz"), before);
    // nothing was left behind, not even a folder
    case.run("predict -m ONE -i nothing -o new/folder").said(1, &["nothing: found no such file"]);
    case.write("broken.nii.gz", "no image");
    assert!(!case.0.path().join("new").exists());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_01_a_failed_run_leaves_no_empty_folder() {
    let case = Case::new();
    case.write("in/broken.nii.gz", "no image");
    case.run("predict -m ONE -i in/broken.nii.gz -o new/folder").said(1, &["broken.nii.gz"]);
    assert!(!case.0.path().join("new").exists());
    case.dataset(&json!({}));
    case.write("labelsTr/case_1.nii.gz", "no label");
    case.run(&format!("train --data . --out runs/a {QUICK}")).said(1, &["case_1.nii.gz"]);
    assert!(!case.0.path().join("runs").exists());
}

#[test]
fn case_08_two_images_make_one_mask() {
    let case = Case::new();
    case.image("in/a.nii");
    case.image("in/a.nii.gz");
    let ran = case.run("predict -m ONE -i in -o out");
    ran.said(1, &["in/a.nii", "in/a.nii.gz", "out/a.nii.gz"]);
    assert!(!case.0.path().join("out").exists());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_10_a_name_from_a_file_is_no_path() {
    for name in ["../../../evil", "/tmp/u2seg-evil", "T1/T2", "C:\\evil", ".."] {
        let case = Case::new();
        case.dataset(&json!({"name": name, "labels": {"background": 0, "../body": 1, "core": 2}}));
        case.run(&format!("train --data . --out OUT/a/b --fold 0 {QUICK}")).said(0, &[]);
        let masks = case.tree("OUT/a/b/validation");
        assert_eq!(masks.len(), 4, "a folder, a mask, its picture and a summary: {masks:?}");
        let images = "imagesTr/case_0_0000.nii.gz";
        let predict = format!("predict -m OUT/a/b -i {images} -o p/a/b --save-probabilities");
        case.run(&predict).said(0, &[]);
        let maps = case.tree("p/a/b/probabilities");
        assert_eq!(maps.iter().filter(|file| file.ends_with(".nii.gz")).count(), 3, "{maps:?}");
        let all = case.tree(".");
        assert!(!all.iter().any(|file| file.contains("evil") && !file.contains('%')), "{all:?}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_12_pairs_and_endings_in_capitals_have_masks_of_their_own() {
    let case = Case::new();
    case.image("C.NII");
    for name in ["a", "b"] {
        // a pair, by its parts: the magic, and voxels from the image file's start
        case.image(&format!("{name}.nii"));
        let bytes = case.bytes(&format!("{name}.nii"));
        let mut header = bytes[..348].to_vec();
        header[344..348].copy_from_slice(b"ni1\0");
        header[108..112].fill(0);
        case.write(&format!("{name}.HDR"), header);
        case.write(&format!("{name}.IMG"), &bytes[352..]);
        std::fs::remove_file(case.at(&format!("{name}.nii"))).unwrap();
    }
    for (input, mask) in [("a.IMG", "a"), ("b.HDR", "b"), ("C.NII", "C")] {
        let mask = format!("out/{mask}.nii.gz");
        case.run(&format!("predict -m ONE -i {input} -o out")).said(0, &[&mask]);
    }
    assert_eq!(case.tree("out").len(), 3);
    case.run("predict -m ONE -i . -o all")
        .said(0, &["all/a.nii.gz", "all/b.nii.gz", "all/C.nii.gz"]);
    case.run("predict -m ONE -i C.NII -o D.NII.GZ").said(0, &["D.NII.GZ"]);
    assert_eq!(read_image(&case.at("D.NII.GZ")).unwrap().shape(), SMALL_SHAPE);
    case.run("predict -m ONE -i C.NII -o E.mgz").said(1, &["-o", "E.mgz", ".nii.gz"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn runs_never_write_over_what_they_read() {
    let case = Case::new();
    for name in ["a/data", "b/data"] {
        let inner = Case(tempfile::tempdir_in(case.0.path()).unwrap());
        inner.dataset(&json!({"name": name.replace('/', "")}));
        std::fs::create_dir_all(case.at(name).parent().unwrap()).unwrap();
        std::fs::rename(inner.0.keep(), case.at(name)).unwrap();
    }
    // two networks of their own in one folder
    let both = format!("train --data a/data b/data --mode independent --out run {QUICK}");
    case.run(&both).said(1, &["--data", "a/data", "b/data", "Rename"]);
    // masks of a run where an image lies
    case.run(&format!("train --data a/data --out run --hold-out case_1 {QUICK}")).said(0, &[]);
    let model = case.bytes("run/model.safetensors");
    std::fs::remove_file(case.at("run/last.safetensors")).unwrap();
    let adapt = format!("adapt -m run --data b/data --out run {}", QUICK.replace("--base 4", ""));
    case.run(&adapt).said(1, &["model.safetensors"]);
    assert_eq!(case.bytes("run/model.safetensors"), model);
    case.run("export -m run --domain adata -o run/model.safetensors").said(1, &["the input"]);
    let mask = case.tree("run/validation").into_iter().find(|f| f.ends_with(".nii.gz")).unwrap();
    let listed = json!({
        "name": "adata", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "b", "2": "c"},
        "training": [
            {"image": "imagesTr/case_0_0000.nii.gz", "label": "labelsTr/case_0.nii.gz"},
            {"image": format!("../../{mask}"), "label": "labelsTr/case_1.nii.gz"},
        ],
    });
    case.json("a/data/dataset.json", &listed);
    let before = case.bytes(&mask);
    let again = format!("train --data a/data --out run --hold-out case_1 {QUICK}");
    case.run(&again).said(1, &["the input", "--out"]);
    assert_eq!(case.bytes(&mask), before);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn parts_of_a_cohort_beside_each_other_keep_their_folders() {
    let case = Case::new();
    case.write("in/a.nii.gz", "broken");
    case.image("in/b.nii.gz");
    let part = |id: &str| {
        let args =
            ["predict", "-i", "in", "-o", "new/out", "--num-parts", "2", "--part-id", id, "-m"];
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/model_1ch.safetensors");
        let mut command = command(&[&args[..], &[model]].concat());
        command.current_dir(case.0.path()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    for _ in 0..3 {
        let (mut broken, mut good) = (part("0"), part("1"));
        assert_eq!(broken.wait().unwrap().code(), Some(1));
        assert_eq!(good.wait().unwrap().code(), Some(0));
        assert_eq!(case.tree("new/out"), ["new/out/b.nii.gz", "new/out/prediction.json"]);
        std::fs::remove_dir_all(case.at("new")).unwrap();
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn going_on_trusts_whole_masks_alone() {
    let case = Case::new();
    case.image("in/a.nii.gz");
    case.image("in/b.nii.gz");
    case.write("out/a.nii.gz", "");
    let predict = "predict -m ONE -i in -o out --continue";
    case.run(predict).said(0, &["out/a.nii.gz", "out/b.nii.gz"]);
    case.run(predict).said(0, &["nothing is left to do"]);
    let ran = case.run(&format!("{predict} --save-probabilities"));
    ran.said(0, &["out/a.nii.gz", "out/b.nii.gz"]);
    assert_eq!(case.tree("out/probabilities/a").len(), 3);
    let again = format!("{predict} --save-probabilities");
    case.run(&again).said(0, &["nothing is left to do"]);
    // a map without its last byte, and a mask of another image
    let map = case.at(&case.tree("out/probabilities/a")[0]);
    let bytes = std::fs::read(&map).unwrap();
    std::fs::write(&map, &bytes[..bytes.len() - 1]).unwrap();
    case.run(&again).said(0, &["out/a.nii.gz"]).not("out/b.nii.gz");
    assert!(std::fs::read(&map).unwrap() == bytes);
    let other = u2seg::low_level::imaging::Grid::ras([4, 5, 6], [1.0; 3]);
    crate::common::volumes::write_mask(&case.at("out/b.nii.gz"), &[0; 120], &other).unwrap();
    case.run(&again).said(0, &["out/b.nii.gz"]).not("out/a.nii.gz");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_list_of_cases_to_leave_out_is_an_input() {
    let case = Case::new();
    case.dataset(&json!({}));
    case.write("run/plan.json", "case_1\n");
    let train = format!("train --data . --exclude run/plan.json --out run {QUICK}");
    case.run(&train).said(1, &["run/plan.json: found the input", "--out"]);
    assert_eq!(case.bytes("run/plan.json"), b"case_1\n");
}
