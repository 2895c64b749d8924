//! Running the program, on small datasets of bright balls.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use super::volumes::{write_image, write_mask};
use u2seg::low_level::imaging::Grid;
use u2seg::low_level::net::read_tensors;

pub const SHAPE: [usize; 3] = [18, 22, 20];

pub fn u2seg(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_u2seg"));
    command.args(args);
    if let (Ok(device), Some("train" | "predict")) =
        (std::env::var("U2SEG_DEVICE"), args.first().copied())
    {
        command.args(["--device", &device]);
    }
    // tests leave nothing in the user's cache
    let prepares = matches!(args.first(), Some(&("train" | "adapt" | "plan" | "prepare")));
    if prepares && !args.contains(&"--cache") {
        command.args(["--cache", "none"]);
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn succeed(args: &[&str]) -> String {
    let output = u2seg(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what must fail with one error line, which it returns, and exit code 2 where that is about flags, 1 otherwise.
pub fn fail(args: &[&str]) -> String {
    let output = u2seg(args);
    let stderr = text(&output.stderr);
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
    let usage = errors[0].starts_with("error: -") || stderr.contains("try '--help'");
    let code = if usage { 2 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    errors[0].to_string()
}

/// A ball of brightness `level` in noise; its voxels are the label.
pub fn case(seed: u64, level: f32) -> (Vec<f32>, Vec<u8>) {
    let [d, h, w] = SHAPE;
    let shift = (seed % 5) as f32 - 2.0;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let (mut image, mut label) = (Vec::new(), Vec::new());
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let at = |v: usize, size: usize| v as f32 - size as f32 / 2.0;
                let (dz, dy, dx) = (at(z, d), at(y, h) + shift, at(x, w) - shift);
                let inside = dz * dz + dy * dy + dx * dx < 36.0;
                image.push(100.0 + 40.0 * noise() + if inside { level } else { 0.0 });
                label.push(u8::from(inside));
            }
        }
    }
    (image, label)
}

/// A Decathlon folder of `count` cases.
pub fn dataset(dir: &Path, name: &str, count: u64, level: f32) {
    let (images, labels) = (dir.join("imagesTr"), dir.join("labelsTr"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&labels).unwrap();
    let grid = Grid::ras(SHAPE, [1.0, 1.0, 1.0]);
    let mut listed = Vec::new();
    for seed in 0..count {
        let (image, label) = case(seed + 1, level);
        let file = format!("case_{seed:02}.nii.gz");
        write_image(&images.join(&file), &image, &grid).unwrap();
        write_mask(&labels.join(&file), &label, &grid).unwrap();
        listed.push(serde_json::json!({
            "image": format!("./imagesTr/{file}"),
            "label": format!("./labelsTr/{file}"),
        }));
    }
    let json = serde_json::json!({
        "name": name,
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "ball"},
        "training": listed,
    });
    std::fs::write(dir.join("dataset.json"), json.to_string()).unwrap();
}

/// A brighter core in a bright ball in noise: body 1, core 2.
pub fn core_case(seed: u64) -> (Vec<f32>, Vec<u8>) {
    let (mut image, mut label) = case(seed, 60.0);
    let [d, h, w] = SHAPE;
    let shift = (seed % 5) as f32 - 2.0;
    for index in 0..label.len() {
        let at = [index / (h * w), index / w % h, index % w];
        let centre = [d as f32 / 2.0, h as f32 / 2.0 - shift, w as f32 / 2.0 + shift];
        let squares = at.iter().zip(centre).map(|(at, c)| (*at as f32 - c).powi(2));
        if squares.sum::<f32>() < 12.0 {
            image[index] += 70.0;
            label[index] = 2;
        }
    }
    (image, label)
}

/// An nnU-Net v2 folder of `count` cases with a core; `labelled` changes the labels of a case, `description` is added to
/// dataset.json.
pub fn core_dataset(
    dir: &Path,
    count: u64,
    description: serde_json::Value,
    labelled: impl Fn(u64, &mut [u8]),
) {
    let (images, labels) = (dir.join("imagesTr"), dir.join("labelsTr"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&labels).unwrap();
    let grid = Grid::ras(SHAPE, [1.0, 1.0, 1.0]);
    for seed in 0..count {
        let (image, mut label) = core_case(seed + 1);
        labelled(seed, &mut label);
        let file = |end: &str| format!("case_{seed:02}{end}.nii.gz");
        write_image(&images.join(file("_0000")), &image, &grid).unwrap();
        write_mask(&labels.join(file("")), &label, &grid).unwrap();
    }
    let mut json = serde_json::json!({"channel_names": {"0": "MR"}, "file_ending": ".nii.gz"});
    for (key, value) in description.as_object().unwrap() {
        json[key] = value.clone();
    }
    // the order of regions is that of the file, which an object of serde_json does not keep: names are in order
    std::fs::write(dir.join("dataset.json"), json.to_string()).unwrap();
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Small and quick.
pub const SMALL: [&str; 6] = ["--base", "8", "--patch", "16,16,16", "--batch", "2"];

pub fn train(data: &[&Path], out: &Path, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = vec!["train".into(), "--data".into()];
    args.extend(data.iter().map(|d| path(d).to_string()));
    args.extend(["--out".to_string(), path(out).to_string()]);
    // what a test sets itself replaces the small default
    let small = SMALL.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
    args.extend(small.chain(more).map(|s| s.to_string()));
    args
}

pub fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Loss readings of a run: domain and loss.
pub fn log(run: &Path) -> Vec<(u64, String, f64)> {
    std::fs::read_to_string(run.join("log.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["validation"].is_null())
        .map(|line| {
            let domain = line["domain"].as_str().unwrap().to_string();
            (line["step"].as_u64().unwrap(), domain, line["loss"].as_f64().unwrap())
        })
        .collect()
}

pub fn weights(run: &Path) -> BTreeMap<String, Vec<u32>> {
    let (tensors, _) = read_tensors(&run.join("model.safetensors")).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    tensors.into_iter().map(|(name, tensor)| (name, bits(tensor.values))).collect()
}

/// Kills a run once it has written a checkpoint and gone on.
pub fn kill_after_checkpoint(args: &[&str], run: &Path) {
    let mut child = command(args).stderr(std::process::Stdio::null()).spawn().unwrap();
    let start = std::time::Instant::now();
    let beyond = |step: u64| {
        run.join("last.safetensors").exists() && log(run).iter().any(|line| line.0 >= step)
    };
    while !beyond(55) {
        assert!(start.elapsed().as_secs() < 300, "no checkpoint after five minutes");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // SIGKILL on Unix
    child.kill().unwrap();
    child.wait().unwrap();
}
