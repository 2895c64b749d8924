//! Whatever numbers an image holds, what the network sees is finite.

use std::path::Path;

use crate::common::volumes::write_image;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use u2seg::low_level::imaging::{
    Grid, Match, Normalisation, Note, Resampling, prepare, read_image, read_images,
};

/// Overwrites bytes of a file.
fn patch(path: &Path, changes: &[(usize, &[u8])]) {
    let mut bytes = std::fs::read(path).unwrap();
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Writes `values` as a 1x1xN float image.
fn line(path: &Path, values: &[f32]) {
    write_image(path, values, &Grid::ras([1, 1, values.len()], [1.0; 3])).unwrap();
}

#[test]
fn odd_voxels_become_0_and_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a.nii", "b.nii"].map(|name| folder.path().join(name));
    line(&a, &[f32::NAN, f32::NEG_INFINITY, -3.4e38, 1e-40, -1e-45, 1e30, 5.0]);
    let image = read_image(&a).unwrap();
    assert_eq!(image.as_slice(), [0.0, 0.0, 0.0, 0.0, 0.0, 1e30, 5.0]);
    let said = |notes: &[Note]| -> Vec<String> { notes.iter().map(|n| n.describe(&[])).collect() };
    assert_eq!(said(image.notes()), ["3 voxels are NaN, infinite or beyond ±1e30 and count as 0"]);
    line(&b, &[7.0; 7]);
    let both = read_images(&[a.clone(), b.clone()], Match::ByPlace).unwrap();
    assert_eq!(said(&both.notes()[1..]), ["channel 1 is 7 everywhere"]);
    line(&b, &[f32::NAN]);
    let image = read_image(&b).unwrap();
    assert_eq!(said(image.notes())[0], "1 voxel is NaN, infinite or beyond ±1e30 and counts as 0");
    assert_eq!(said(image.notes())[1], "channel 0 is 0 everywhere");
    // the slope makes the number: 2e38 * 10 is no float32, and 1e20 * 1e20 is too large
    for (value, slope) in [(2e38f32, 10.0f32), (1e20, 1e20), (1.0, f32::MAX)] {
        line(&a, &[0.0, value]);
        patch(&a, &[(112, &slope.to_le_bytes())]);
        assert_eq!(read_image(&a).unwrap().as_slice(), [0.0, 0.0], "{value} {slope}");
    }
    line(&a, &[0.0, 1e35]);
    patch(&a, &[(112, &1e-34f32.to_le_bytes())]);
    assert!((read_image(&a).unwrap().as_slice()[1] - 10.0).abs() < 1e-4);
}

/// A float64 image of 2 x 3 x 4 voxels along i, j, k.
fn doubles(path: &Path, bits: &[u64], spacing: [f64; 3]) {
    write_image(path, &[0.0; 24], &Grid::ras([4, 3, 2], spacing)).unwrap();
    patch(path, &[(70, &64i16.to_le_bytes()), (72, &64i16.to_le_bytes())]);
    let mut bytes = std::fs::read(path).unwrap();
    bytes.truncate(352);
    bytes.extend(bits.iter().flat_map(|bits| bits.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_bits_are_read_and_prepared(
        single in prop::collection::vec(any::<u32>(), 24),
        double in prop::collection::vec(any::<u64>(), 24),
        slope in any::<u32>(),
        from in prop::array::uniform3(0.5..3.0f64),
        to in prop::array::uniform3(0.3..5.0f64),
        bounds in prop::array::uniform4(any::<u32>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a.nii", "b.nii.gz"].map(|name| folder.path().join(name));
        doubles(&a, &double, from);
        patch(&a, &[(112, &slope.to_le_bytes())]);
        let floats: Vec<f32> = single.iter().map(|bits| f32::from_bits(*bits)).collect();
        write_image(&b, &floats, &Grid::ras([4, 3, 2], from)).unwrap();
        let image = read_images(&[a, b], Match::ByPlace);
        if !f32::from_bits(slope).is_finite() {
            prop_assert!(image.unwrap_err().to_string().contains("a.nii: found scl_slope"));
            return Ok(());
        }
        let image = image.unwrap();
        prop_assert!(image.as_slice().iter().all(|v| v.is_finite() && v.abs() <= 1e30 && !v.is_subnormal()));
        let [lower, upper, mean, std] = bounds.map(f32::from_bits);
        let ct = Normalisation::Fixed { lower: -160.0, upper: 240.0, mean: 40.0, std: 100.0 };
        let any = Normalisation::Fixed { lower, upper, mean, std };
        for kind in [Normalisation::ZScore, Normalisation::Published, ct, any] {
            let prepared = prepare(&image, None, to, &kind, Resampling::Cubic).unwrap();
            prop_assert!(prepared.image.iter().all(|v| v.is_finite()), "{kind:?}");
            prop_assert!(prepared.outside.is_finite(), "{kind:?}");
        }
    }
}
