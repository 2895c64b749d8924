//! Real images through the whole program: two organs of different orientation, spacing and class count in one network.

use crate::common;
use crate::common::program::*;
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::imaging::{Known, read_labels};

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn hippocampus_and_spinal_cord_learn_together() {
    let data = common::data_dir();
    let tasks = ["Task04_Hippocampus", "Task22_SpinalCord"].map(|task| data.join(task));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let paths: Vec<&std::path::Path> = tasks.iter().map(|t| t.as_path()).collect();
    let more = ["--steps", "120", "--patch", "16,32,16", "--pools", "2,2,2"];
    succeed(&strs(&train(&paths, &run, &more)));
    let log = log(&run);
    for task in &tasks {
        let dataset = Dataset::open(task).unwrap();
        let losses: Vec<f64> = log.iter().filter(|l| l.1 == dataset.name).map(|l| l.2).collect();
        let half = losses.len() / 2;
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (early, late) = (mean(&losses[..half.min(2)]), mean(&losses[half..]));
        assert!(late < 0.85 * early, "{}: loss from {early} to {late}", dataset.name);
        // a mask comes back on its image's own grid, whatever its orientation
        let case = &dataset.cases[0];
        let mask = folder.path().join("mask.nii.gz");
        let image = path(&case.images[0]);
        let model = run.join("model.safetensors");
        let args = ["predict", "-m", path(&model), "-i", image, "-o", path(&mask), "--domain"];
        succeed(&[&args[..], &[&dataset.name]].concat());
        let (image, _) = dataset.load(case).unwrap();
        let mask = read_labels(&mask, &Known::any()).unwrap();
        assert_eq!((mask.grid().dims, mask.shape()), (image.grid().dims, image.shape()));
        assert_eq!(mask.grid().affine, image.grid().affine);
    }
}
