//! Dataset folders, their cases, and what decides what is trained on.

use crate::common::volumes::{write_image, write_mask};
use serde_json::{Value, json};
use u2seg::low_level::imaging::Grid;

use super::rig::*;
use crate::common::program::*;

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_03_two_cases_have_one_base_name() {
    let case = Case::new();
    let mut training = Vec::new();
    for patient in ["patA", "patB", "patC"] {
        case.image(&format!("{patient}/imaging.nii.gz"));
        case.label(&format!("{patient}/segmentation.nii.gz"));
        training.push(json!({
            "image": format!("./{patient}/imaging.nii.gz"),
            "label": format!("./{patient}/segmentation.nii.gz"),
        }));
    }
    let describe = |training: &[Value]| {
        let labels = json!({"0": "background", "1": "body", "2": "core"});
        let modality = json!({"0": "MRI"});
        let json =
            json!({"name": "same", "modality": modality, "labels": labels, "training": training});
        case.json("dataset.json", &json);
    };
    describe(&training);
    let train = format!("train --data . --out run {QUICK}");
    let parts = ["3 cases called segmentation", "patA/segmentation", "patB/segmentation"];
    case.run(&format!("{train} --hold-out segmentation")).said(1, &parts);
    case.run(&format!("{train} --hold-out patA/segmentation patB/segmentation")).said(0, &[]);
    let masks = case.tree("run/validation");
    assert_eq!(masks.iter().filter(|file| file.ends_with(".nii.gz")).count(), 2, "{masks:?}");
    // one label listed twice is refused with both paths
    training.push(json!({"image": "patB/imaging.nii.gz", "label": "patA/segmentation.nii.gz"}));
    describe(&training);
    let parts = ["two cases called patA/segmentation", "patA/segmentation.nii.gz"];
    case.run("verify --data .").said(1, &parts);
    case.run(&format!("train --data . --out other {QUICK}")).said(1, &parts);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_07_channel_files_are_counted() {
    let case = Case::new();
    for file in ["gap/a_0000", "gap/a_0002", "bare/a", "bare/a_0000", "more/a_0000", "more/a_0001"]
    {
        case.image(&format!("{file}.nii.gz"));
    }
    for file in ["none/a_0001", "mixed/a_0000", "mixed/a_0001", "mixed/b_0000"] {
        case.image(&format!("{file}.nii.gz"));
    }
    case.run("predict -m TWO -i gap -o o1").said(1, &["gap/a_0001.nii.gz: found no such file"]);
    case.run("predict -m TWO -i bare -o o2")
        .said(1, &["bare/a.nii.gz", "without a channel's number"]);
    case.run("predict -m ONE -i more -o o3").said(1, &["more/a_0001.nii.gz", "one too many"]);
    case.run("predict -m TWO -i none -o o4").said(1, &["a_0001.nii.gz: found 1 channel", "a_0000"]);
    case.run("predict -m TWO -i more -o o5").said(0, &["o5/a.nii.gz"]);
    // one case at fault costs that case alone
    let ran = case.run("predict -m TWO -i mixed -o o6");
    ran.said(1, &["mixed/b_0001.nii.gz: found no such file", "o6/a.nii.gz"]);
}

#[test]
fn case_07_channel_files_of_a_dataset_are_counted() {
    let case = Case::new();
    case.dataset(&json!({}));
    case.image("imagesTr/case_0_0001.nii.gz");
    case.run("verify --data .").said(1, &["case_0_0001.nii.gz: found 2 channel files"]);
    case.dataset(&json!({"channel_names": {"0": "T1", "1": "T2"}}));
    let parts =
        ["case_1_0001.nii.gz: found no such file", "case_2_0001.nii.gz: found no such file"];
    case.run("verify --data .").said(1, &parts).said(1, &["2 of 3 cases with errors"]);
}

#[test]
fn case_13_the_dataset_key_decides() {
    let case = Case::new();
    let files =
        json!({"images": ["./imagesTr/case_0_0000.nii.gz"], "label": "./labelsTr/case_0.nii.gz"});
    case.dataset(&json!({"dataset": {"first": files}}));
    case.run("verify --data .")
        .said(0, &["first: 8×9×10", "1 case", "case_1.nii.gz belongs to no"]);
}

#[test]
fn case_23_a_byte_order_mark_is_skipped() {
    let case = Case::new();
    case.dataset(&json!({}));
    let text = String::from_utf8(case.bytes("dataset.json")).unwrap();
    case.write("dataset.json", format!("\u{feff}{text}"));
    case.run("verify --data .").said(0, &["3 cases, 0 with errors"]);
    let wide = |units: Vec<u16>, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        units.into_iter().flat_map(bytes).collect()
    };
    let units: Vec<u16> = format!("\u{feff}{text}").encode_utf16().collect();
    for bytes in [wide(units.clone(), u16::to_le_bytes), wide(units.clone(), u16::to_be_bytes)] {
        case.write("dataset.json", bytes);
        case.run("verify --data .").said(0, &["3 cases, 0 with errors"]);
    }
}

#[test]
fn case_24_labels_with_gaps_and_regions_are_read_and_others_name_the_entry() {
    let case = Case::new();
    let verify = |labels: Value, order: Value| {
        case.dataset(&json!({"labels": labels, "regions_class_order": order}));
        case.run("verify --data .")
    };
    let regions = json!({"all tumor": [1, 2], "background": 0, "core": [2]});
    verify(regions.clone(), json!([1, 2])).said(0, &["all tumor", "0 with errors"]);
    verify(regions, Value::Null).said(1, &["without regions_class_order", "regions_class_order\""]);
    let gaps = json!({"background": 0, "a": 2, "b": 1, "c": 5});
    verify(gaps, Value::Null).said(0, &["5 (c) of dataset.json is in no case"]);
    let texts = json!({"background": "0", "body": "1", "core": "2"});
    verify(texts, Value::Null).said(0, &["0 with errors"]);
    let wrong = json!({"background": 0, "body": 1, "core": "two"});
    verify(wrong, Value::Null).said(1, &["\"core\": \"two\"", "dataset.json"]);
    let unknown = json!({"background": 0, "body": 1});
    verify(unknown, Value::Null).said(1, &["label values 2 (", "3 of 3 cases"]);
}

#[test]
fn case_25_verify_reads_every_case_of_every_folder() {
    let case = Case::new();
    case.dataset(&json!({}));
    std::fs::remove_file(case.at("imagesTr/case_1_0000.nii.gz")).unwrap();
    let bytes = case.bytes("labelsTr/case_2.nii.gz");
    case.write("labelsTr/case_2.nii.gz", &bytes[..7]);
    let ran = case.run("verify --data nowhere . nothing --fix-list leave.txt");
    let parts = [
        "nowhere: found no such folder",
        "nothing: found no such folder",
        "case_0: 8×9×10",
        "case_1_0000.nii.gz: found no such file",
        "case_2.nii.gz: found a gzip stream",
        "3 cases, 2 with errors",
    ];
    ran.said(1, &parts);
    let list = String::from_utf8(case.bytes("leave.txt")).unwrap();
    let cases: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(cases.len() == 2 && cases[0].ends_with("\tcase_1"), "{list}");
    case.run("verify --data . --exclude leave.txt").said(0, &["1 case, 0 with errors"]);
    case.write("other.txt", "nobody\n");
    case.run("verify --data . --exclude other.txt").said(1, &["--exclude", "nobody"]);
    // it takes the place of an earlier list and of nothing else, whether the dataset can be read or not
    case.run("verify --data . --fix-list leave.txt").said(1, &["2 cases to leave out"]);
    for json in [case.bytes("dataset.json"), b"{ \"labels\": ".to_vec()] {
        case.write("dataset.json", &json);
        for file in ["dataset.json", "imagesTr/case_0_0000.nii.gz", "labelsTr/case_0.nii.gz"] {
            let before = case.bytes(file);
            case.run(&format!("verify --data . --fix-list {file}")).said(1, &[file, "no fix list"]);
            assert_eq!(case.bytes(file), before);
        }
    }
}

#[test]
fn case_25_warnings_are_counted() {
    let case = Case::new();
    case.dataset(&json!({}));
    std::fs::copy(case.at("imagesTr/case_1_0000.nii.gz"), case.at("imagesTr/case_0_0000.nii.gz"))
        .unwrap();
    case.mask("labelsTr/case_1.nii.gz", &[0; VOXELS]);
    write_image(&case.at("imagesTr/case_2_0000.nii.gz"), &[f32::NAN; VOXELS], &grid()).unwrap();
    for scan in ["p01_a", "p01_b"] {
        case.image(&format!("imagesTr/{scan}_0000.nii.gz"));
        case.label(&format!("labelsTr/{scan}.nii.gz"));
    }
    let ran = case.run("verify --data .");
    let parts = [
        "the images of case_0, case_1 are the same",
        "nothing is labelled",
        "720 voxels are NaN",
        "channel MRI is 0 everywhere",
        "p01_a, p01_b look like scans of one patient",
    ];
    let ran = ran.said(0, &parts);
    let printed = ran.out.matches("warning: ").count();
    let json: Value = serde_json::from_str(&case.run("verify --data . --json").out).unwrap();
    let count = |value: &Value| value["warnings"].as_array().unwrap().len();
    let cases = json[0]["cases"].as_array().unwrap().iter().map(count).sum::<usize>();
    assert_eq!(printed, cases + count(&json[0]), "{}", ran.out);
    assert!(ran.out.contains(&format!("{printed} warnings")), "{}", ran.out);
}

/// Each wrong file gets a sentence of its own, and the right remedy.
#[test]
fn case_26_every_wrong_file_has_its_own_remedy() {
    let case = Case::new();
    case.dataset(&json!({}));
    let image = "imagesTr/case_0_0000.nii.gz";
    let mut two = vec![0u8; 600];
    two[..4].copy_from_slice(&540i32.to_le_bytes());
    let mut dicom = vec![0u8; 400];
    dicom[128..132].copy_from_slice(b"DICM");
    for (bytes, found, remedy) in [
        (&b""[..], "an empty file", "again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML", "download"),
        (&two, "a NIfTI-2 file", "nibabel"),
        (&dicom, "a file that cannot be read", "export the file again"),
        (b"NRRD0004\ntype: short\n", "no field \"sizes\"", "Save the image again"),
        (&[0; 900], "a file of zeros", "again"),
    ] {
        case.write(image, bytes);
        case.run("verify --data .").said(1, &[image, found, remedy, "1 of 3 cases"]);
    }
}

#[test]
fn case_26_every_wrong_description_has_its_own_remedy() {
    let case = Case::new();
    case.dataset(&json!({}));
    let (image, label) = ("imagesTr/case_0_0000.nii.gz", "labelsTr/case_0.nii.gz");
    let describe = |more: Value| {
        let mut json = json!({
            "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "body", "2": "core"},
            "training": [{"image": [image], "label": label}],
        });
        more.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
        json.to_string()
    };
    let entry =
        |value: Value| describe(json!({"training": [{"image": image, "label": label}, value]}));
    for (text, part) in [
        (String::new(), "an empty file"),
        ("version https://git-lfs.github.com/spec/v1\n".into(), "git lfs pull"),
        ("<html><body>Sign in</body></html>".into(), "a web page"),
        ("\0".repeat(99), "a file of zeros"),
        ("[]".into(), "found invalid type: list, expected an object with modality"),
        ("[\"D\"]".into(), "found invalid type: list, expected an object with modality"),
        (describe(json!({"name": 5})), "found name: invalid type: integer `5`, expected a string"),
        (
            describe(json!({"training": {}})),
            "found training: invalid type: object, expected a list",
        ),
        (entry(json!({"image": image})), "found training[1]: missing field `label`"),
        (
            entry(json!({"image": {}, "label": label})),
            "found training[1].image: invalid type: object, expected a path or a list of paths",
        ),
        (
            entry(json!({"image": [image, 1], "label": label})),
            "found training[1].image[1]: invalid type: integer `1`, expected a string",
        ),
        (
            entry(json!([image, label])),
            "found training[1]: invalid type: list, expected an object with image and label",
        ),
        (
            describe(json!({"dataset": {"first": {"images": [5], "label": label}}})),
            "found dataset.first.images[0]: invalid type: integer `5`, expected a string",
        ),
    ] {
        case.write("dataset.json", &text);
        let ran = case.run("verify --data .").said(1, &["dataset.json: found ", part]);
        ["struct", "enum", "untagged"].into_iter().fold(ran, Ran::not);
    }
    case.write("dataset.json", entry(json!({"image": [image], "label": label})));
    case.run("verify --data .").said(1, &["two cases called case_0"]);
}

/// What is no file, or leads to none, is refused before it is opened.
#[cfg(unix)]
#[test]
fn case_26_pipes_folders_and_lost_links_are_named() {
    let case = Case::new();
    case.dataset(&json!({}));
    let image = "imagesTr/case_0_0000.nii.gz";
    let verify = |found: &str, remedy: &str| {
        case.run("verify --data .").said(1, &[image, found, remedy, "1 of 3 cases"]);
    };
    let file = case.at(image);
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    verify("found a pipe or a device", "as a file");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("../.git/annex/objects/gone", &file).unwrap();
    verify("found a link to ../.git/annex/objects/gone, which is not there", "git annex get");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    verify("found a folder", "a file");
    std::fs::remove_file(case.at("dataset.json")).unwrap();
    std::os::unix::fs::symlink("gone.json", case.at("dataset.json")).unwrap();
    case.run("verify --data .").said(1, &["dataset.json: found a link to gone.json", "Restore"]);
}

#[test]
fn case_26_data_is_the_folder_of_a_dataset() {
    let case = Case::new();
    case.dataset(&json!({}));
    let parts = ["dataset.json: found a file; expected the folder of a dataset", "lies in: ."];
    case.run("verify --data dataset.json").said(1, &parts);
    let raw = Case::new();
    for name in ["Task02_B", "Task01_A"] {
        raw.json(&format!("raw/{name}/dataset.json"), &json!({}));
    }
    let parts = ["2 folders that are datasets", "Task01_A raw", "Task02_B"];
    raw.run("verify --data raw").said(1, &parts);
    std::fs::remove_file(raw.at("raw/Task02_B/dataset.json")).unwrap();
    raw.run("verify --data raw").said(1, &["a folder that is a dataset", "Task01_A."]);
}

#[test]
fn case_26_every_wrong_folder_has_its_own_remedy() {
    let case = Case::new();
    let mut dicom = vec![0u8; 400];
    dicom[128..132].copy_from_slice(b"DICM");
    case.write("dicom/IM0001", &dicom);
    case.write("dicom/IM0002.dcm", &dicom);
    case.write("mgz/a.mgz", "");
    std::fs::create_dir(case.at("empty")).unwrap();
    for (folder, found) in [
        ("dicom", "IM0001: found a file that cannot be read"),
        ("mgz", ".mgz files"),
        ("empty", "no .nii"),
    ] {
        case.run(&format!("predict -m ONE -i {folder} -o out")).said(1, &[folder, found]);
    }
    case.run("verify --data dicom").said(1, &["a DICOM folder (2 files)", "dcm2niix"]);
    case.run("verify --data empty").said(1, &["dataset.json: found no such file", "imagesTr"]);
    // an nnU-Net v1 folder, a Windows path, an image without a channel's number
    case.dataset(&json!({}));
    let listed = |image: &str| {
        json!({
            "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "body", "2": "core"},
            "training": [{"image": image, "label": "./labelsTr/case_0.nii.gz"}],
        })
    };
    case.json("dataset.json", &listed("./imagesTr/case_0.nii.gz"));
    case.run("verify --data .").said(1, &["an nnU-Net v1 folder", "nnUNetv2_convert_old"]);
    if !cfg!(windows) {
        case.json("dataset.json", &listed("imagesTr\\case_0_0000.nii.gz"));
        case.run("verify --data .").said(1, &["the Windows path", "with /"]);
    }
    case.dataset(&json!({}));
    std::fs::rename(case.at("imagesTr/case_0_0000.nii.gz"), case.at("imagesTr/case_0.nii.gz"))
        .unwrap();
    case.run("verify --data .").said(1, &["imagesTr/case_0.nii.gz", "case_0_0000", "Rename it"]);
    case.dataset(&json!({"file_ending": ".mgz"}));
    case.run("verify --data .").said(1, &["file_ending \".mgz\"", "Convert"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_fix_list_a_group_and_the_splits_of_nnunet_decide_what_is_trained_on() {
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    for scan in ["p1_a", "p1_b", "p2_a"] {
        case.image(&format!("imagesTr/{scan}_0000.nii.gz"));
        case.label(&format!("labelsTr/{scan}.nii.gz"));
    }
    case.write("labelsTr/case_1.nii.gz", "broken");
    let train = |more: &str| {
        let run = case.0.path().join("run");
        if run.exists() {
            std::fs::remove_dir_all(&run).unwrap();
        }
        case.run(&format!("train --data . --out run {QUICK} {more}"))
    };
    train("").said(1, &["case_1.nii.gz"]);
    case.run("verify --data . --fix-list leave.txt").said(1, &[]);
    train("--exclude leave.txt").said(0, &["D: 5 training cases, 0 held out"]);
    case.write("wrong.txt", "nobody\n");
    train("--exclude wrong.txt").said(1, &["--exclude", "nobody"]);
    let group = "--exclude leave.txt --group ^([a-z0-9]+)_";
    train(&format!("{group} --hold-out p1_b"))
        .said(0, &["3 training cases, 2 held out", "p1_a is held out"]);
    train("--exclude leave.txt --group ^(p\\d)_").said(1, &["--group", "case_0"]);
    case.json(
        "splits_final.json",
        &json!([{"train": ["case_0", "p1_a"], "val": ["p2_a"]}, {"train": ["case_2"], "val": []}]),
    );
    train("--exclude leave.txt --fold 0").said(0, &["2 training cases, 1 held out"]);
    train("--exclude leave.txt --fold 2").said(1, &["--fold", "less than 2"]);
    train(&format!("{group} --fold 0")).said(1, &["--group", "splits_final.json"]);
    case.json("splits_final.json", &json!([{"train": ["case_0", "gone"], "val": ["p2_a"]}]));
    train("--exclude leave.txt --fold 0").said(1, &["splits_final.json", "gone"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn tuning_is_not_ignored_where_runs_start_through_a_written_plan() {
    let case = Case::new();
    case.dataset(&json!({}));
    let quick = QUICK.replace("--tune off", "--tune quick");
    let run = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut command = command(&args);
        command.current_dir(case.0.path()).env("U2SEG_CACHE", case.at("cache"));
        let output = command.env("RUST_LOG", "warn,u2seg::engine::tune=info").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    run(&format!("plan --data . --out run {quick}"));
    assert!(!case.at("run/tuning.json").exists());
    let err = run("train --continue --out run");
    assert!(err.contains("shapes timed"), "{err}");
    assert!(case.at("run/tuning.json").exists());
    // asked for when it begins
    run(&format!("plan --data . --out later {QUICK}"));
    let refused = case.run("train --continue --out later --tune full --batch 9");
    refused.said(1, &["--batch: found settings beside --continue", "--checkpoint-every"]);
    let err = run("train --continue --out later --tune full");
    assert!(err.contains("shapes timed"), "{err}");
    // later starts keep what the first one found
    let err = run("train --continue --out run");
    assert!(!err.contains("shapes timed"), "{err}");
    let err = run(&format!("train --data . --out folds --fold all {quick}"));
    assert_eq!(err.matches("shapes timed").count(), 3, "{err}");
    (0..3).for_each(|fold| assert!(case.at(&format!("folds/fold_{fold}/tuning.json")).exists()));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_held_out_case_that_cannot_be_scored_is_refused_before_training() {
    let case = Case::new();
    case.dataset(&json!({}));
    let far = Grid::ras(SMALL_SHAPE, [1000.0, 1.0, 1.0]);
    let (values, labels) = made(1);
    write_mask(&case.at("labelsTr/case_1.nii.gz"), &labels, &far).unwrap();
    let train = format!("train --data . --out run --hold-out case_1 {QUICK}");
    case.run(&train).said(1, &["labelsTr/case_1.nii.gz", "mm away"]).not("step 1");
    assert!(!case.0.path().join("run").exists());
    // voxels of metres, which make too many of the others'
    let huge = Grid::ras(SMALL_SHAPE, [1000.0; 3]);
    write_image(&case.at("imagesTr/case_1_0000.nii.gz"), &values, &huge).unwrap();
    write_mask(&case.at("labelsTr/case_1.nii.gz"), &labels, &huge).unwrap();
    case.run(&train).said(1, &["imagesTr/case_1_0000.nii.gz", "voxels"]).not("step 1");
    case.run("verify --data .").said(1, &["1 of 3 cases with errors", "case_1: error"]);
}

#[test]
fn verify_tells_every_fault_of_a_case() {
    let case = Case::new();
    case.dataset(&json!({"channel_names": {"0": "T1", "1": "T2", "2": "T3", "3": "T4"}}));
    for channel in [0, 2] {
        case.image(&format!("imagesTr/case_0_000{channel}.nii.gz"));
    }
    case.write("imagesTr/case_0_0000.nii.gz", "version https://git-lfs.github.com/spec/v1\n");
    case.write("labelsTr/case_0.nii.gz", "<html>");
    let parts = ["case_0_0001.nii.gz: found no", "case_0_0003.nii.gz: found no", "Git LFS", "HTML"];
    case.run("verify --data .").said(1, &parts).not("case_0_0002");
    let case = Case::new();
    case.dataset(&json!({}));
    let mut labels = made(1).1;
    labels[0] = 7;
    let far = Grid::ras(SMALL_SHAPE, [1.0, 1.0, 2.0]);
    write_mask(&case.at("labelsTr/case_0.nii.gz"), &labels, &far).unwrap();
    write_image(&case.at("imagesTr/case_0_0000.nii.gz"), &[5.0; VOXELS], &grid()).unwrap();
    let parts = ["label values 7", "mm away", "channel MRI is 5 everywhere"];
    case.run("verify --data .").said(1, &parts);
    // what is listed is told once
    let listed = json!({"first": {"images": [], "label": "labelsTr/case_0.nii.gz"}});
    case.dataset(&json!({"dataset": listed}));
    case.run("verify --data .").said(1, &["0 image files for the case first"]).not("internal");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn folds_are_those_of_the_call_and_not_what_lies_beside_them() {
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    let train = format!("train --data . --out all --fold all {QUICK}");
    case.write("all/fold_notes/notes.txt", "mine");
    case.run(&train).said(0, &["D, all folds"]);
    let cases = |out: &str| {
        let json: Value =
            serde_json::from_slice(&case.bytes(&format!("{out}/validation/D/summary.json")))
                .unwrap();
        json["metric_per_case"].as_array().unwrap().len()
    };
    assert_eq!(cases("all"), 3);
    // a fold of another run counts for nothing
    std::fs::create_dir(case.at("other")).unwrap();
    std::fs::rename(case.at("all/fold_0"), case.at("other/fold_9")).unwrap();
    case.run(&train.replace("--out all", "--out other")).said(0, &["D, all folds"]);
    assert_eq!(cases("other"), 3);
    // nor is a run one of several by its name
    let one = format!("train --data . --out fold_1 --fold 1 {QUICK}");
    case.run(&one).said(0, &[]).not("all folds");
    case.run("train --continue --out fold_1").said(0, &[]).not("all folds");
}
