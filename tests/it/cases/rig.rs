//! A folder that a test fills, the program run in it, and what it said.

use std::path::PathBuf;

use crate::common::volumes::{write_image, write_mask};
use serde_json::{Value, json};
use u2seg::low_level::imaging::Grid;

use crate::common::program::*;

pub const SMALL_SHAPE: [usize; 3] = [8, 9, 10];
pub const VOXELS: usize = 8 * 9 * 10;

/// A folder that a test fills, and in which it runs the program.
pub struct Case(pub tempfile::TempDir);

/// What a run of the program came to.
pub struct Ran {
    pub args: Vec<String>,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The exit code, which is 2 instead of 1 where the error is about flags, and parts of what was printed.
    pub fn said(self, code: i32, parts: &[&str]) -> Self {
        let Self { args, out, err, .. } = &self;
        let usage = code == 1 && err.lines().any(|line| line.starts_with("error: -"));
        let code = if usage { 2 } else { code };
        assert_eq!(self.code, Some(code), "{args:?}\n{out}\n{err}");
        for part in parts {
            let found = out.contains(part) || err.contains(part);
            assert!(found, "{part:?} is missing after {args:?}:\n{out}\n{err}");
        }
        assert!(!err.contains("panicked"), "{err}");
        self
    }

    pub fn not(self, part: &str) -> Self {
        assert!(!self.out.contains(part) && !self.err.contains(part), "{}\n{}", self.out, self.err);
        self
    }
}

impl Case {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    /// A noisy image with a bright box.
    pub fn image(&self, name: &str) {
        // a name gives its image
        let seed = name.bytes().fold(0, |sum, byte| sum * 31 % 99_991 + u64::from(byte));
        let (values, _) = made(seed);
        write_image(&self.at(name), &values, &grid()).unwrap();
    }

    pub fn label(&self, name: &str) {
        write_mask(&self.at(name), &made(0).1, &grid()).unwrap();
    }

    pub fn mask(&self, name: &str, labels: &[u8]) {
        write_mask(&self.at(name), labels, &grid()).unwrap();
    }

    pub fn json(&self, name: &str, value: &Value) {
        self.write(name, value.to_string());
    }

    /// An nnU-Net folder of three cases; `more` goes into dataset.json.
    pub fn dataset(&self, more: &Value) {
        for case in 0..3 {
            self.image(&format!("imagesTr/case_{case}_0000.nii.gz"));
            self.label(&format!("labelsTr/case_{case}.nii.gz"));
        }
        let mut json = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "body": 1, "core": 2},
            "file_ending": ".nii.gz",
        });
        more.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
        self.json("dataset.json", &json);
    }

    pub fn run(&self, args: &str) -> Ran {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
        let args: Vec<String> = args
            .split_whitespace()
            .map(|arg| match arg {
                "ONE" => format!("{data}model_1ch.safetensors"),
                "TWO" => format!("{data}model_2ch.safetensors"),
                other => other.to_string(),
            })
            .collect();
        let output = command(&strs(&args)).current_dir(self.0.path()).output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Ran { args, code: output.status.code(), out, err }
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap()
    }

    /// Files and folders below a folder.
    pub fn tree(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().join(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.0.path()).unwrap();
                found.push(name.to_string_lossy().replace('\\', "/"));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

pub fn grid() -> Grid {
    Grid::ras(SMALL_SHAPE, [1.0; 3])
}

/// Values and labels: body 1, core 2.
pub fn made(seed: u64) -> (Vec<f32>, Vec<u8>) {
    let inside = |index: usize, rim: usize| {
        let at = [index / 90, index / 10 % 9, index % 10];
        (0..3).all(|axis| (rim..SMALL_SHAPE[axis] - rim).contains(&at[axis]))
    };
    let label = |i: usize| u8::from(inside(i, 2)) + u8::from(inside(i, 3));
    let noise = |i: usize| ((i as u64 * 7919 + seed * 104_729) % 101) as f32 / 10.0;
    let labels: Vec<u8> = (0..VOXELS).map(label).collect();
    let values = labels.iter().enumerate().map(|(i, l)| noise(i) + 90.0 * f32::from(*l)).collect();
    (values, labels)
}

pub const QUICK: &str = "--base 4 --steps 2 --patch 8,8,8 --pools 1,1,1 --tune off";
