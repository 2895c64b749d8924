//! Patches that shaders make, compared with the plain loops of `patch::make_patch`.

use crate::common;
use crate::common::program;
use crate::common::volumes::volume;
use u2seg::low_level::dataset::prepared::Facts;
use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::{Caps, Layout};
use u2seg::low_level::imaging;
use u2seg::low_level::imaging::{Grid, LabelMap, Normalisation, Prepared, Resampling};
use u2seg::low_level::patch::{
    Augment, Draw, Focus, Interpolation, Patch, PatchSize, draw_patch, make_patch, rng_for,
};
use u2seg::low_level::patch::{Capacity, Patches, Sample, Source, Target};
use u2seg::{Error, Result};

/// Smooth and rough parts, several classes, a value of its own beyond the edge.
fn case(channels: usize, shape: [usize; 3], spacing: [f64; 3], seed: u64) -> Prepared {
    use rand::RngExt;
    let voxels: usize = shape.iter().product();
    let mut rng = rng_for(seed, 0, 0);
    let data: Vec<f32> = (0..channels * voxels)
        .map(|i| (i as f32 * 0.37).sin() + 0.3 * rng.random::<f32>() + 2.0)
        .collect();
    let labels = (0..voxels).map(|_| rng.random_range(0..5)).collect();
    let grid = Grid::ras(shape, spacing);
    let image = volume(channels, data, &grid);
    let label = LabelMap::from_vec(labels, grid).unwrap();
    let mut case =
        imaging::prepare(&image, Some(&label), spacing, &Normalisation::ZScore, Resampling::Cubic)
            .unwrap();
    assert_eq!(case.shape, shape);
    case.outside = -3.5;
    case
}

/// Buffers as a session has them.
struct Out {
    layout: Layout,
    image: wgpu::Buffer,
    labels: wgpu::Buffer,
}

impl Out {
    fn new(gpu: &Gpu, samples: usize, channels: usize, patch: [usize; 3]) -> Self {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let layout = Layout::new(samples, channels, patch);
        let words = samples * layout.voxels();
        let buffer = |label, words: usize| {
            let buffer = gpu.buffer(label, 4 * words as u64, usage).unwrap();
            gpu.upload(&buffer, 0, &vec![0x7f; 4 * words]);
            buffer
        };
        let (image, labels) = (buffer("image", layout.words()), buffer("labels", words));
        Self { layout, image, labels }
    }

    fn target(&self) -> Target<'_> {
        Target { image: &self.image, labels: &self.labels }
    }

    /// Packed words and labels of all samples.
    fn read(&self, gpu: &Gpu) -> (Vec<f32>, Vec<u32>) {
        let image = gpu.download(&self.image, 0, 4 * self.layout.words() as u64).unwrap();
        let words = (self.layout.n * self.layout.voxels()) as u64;
        let labels = gpu.download(&self.labels, 0, 4 * words).unwrap();
        (bytemuck::pod_collect_to_vec(&image), bytemuck::pod_collect_to_vec(&labels))
    }
}

/// Limits under which patches are made, with the bytes of the cache: as a GPU and as a CPU, in few groups, of cases too
/// large for the cache or for a binding.
fn ways(gpu: &Gpu, case: &Prepared, size: PatchSize) -> Vec<(&'static str, Caps, u64)> {
    let own = Caps { software: false, ..caps(gpu) };
    let plane = 4 * case.shape.iter().product::<usize>() as u64;
    let patch = 16 * size.patch.iter().product::<usize>() as u64;
    let few = 48.max((patch as f64 / 1024.0).sqrt() as u32 + 1);
    let mut ways = vec![
        ("gpu", own.clone(), 1 << 30),
        ("software", Caps { software: true, ..own.clone() }, 1 << 30),
        ("few groups", Caps { max_groups: few, ..own.clone() }, 1 << 30),
        ("boxes", own.clone(), 0),
    ];
    // where the patch itself needs less than the case
    if patch < plane {
        ways.push(("small bindings", Caps { max_binding: plane - 1, ..own }, 1 << 30));
    }
    ways
}

/// What the shaders make of some draws of one case: packed words, labels, bytes of the cached case.
fn made(
    gpu: &Gpu,
    (caps, budget): (&Caps, u64),
    (case, size): (&Prepared, PatchSize),
    augment: &Augment,
    draws: &[Draw],
) -> Result<(Vec<f32>, Vec<u32>, u64)> {
    let source = Source::new([case], size);
    let mut patches = Patches::new(gpu, caps, std::slice::from_ref(&source), augment, budget)?;
    let out = Out::new(gpu, draws.len(), case.channels, size.patch);
    let drawn = draws.iter().map(|draw| (0, draw.clone())).collect();
    let samples = Sample::ready(0, &source, drawn, &mut patches.cache())?;
    for (at, sample) in samples.iter().enumerate() {
        patches.make(&source, sample, at, &out.target())?;
    }
    let (image, labels) = out.read(gpu);
    Ok((image, labels, patches.cached()))
}

/// A displaced position is rounded: near the edge of the case, or halfway between voxels, the shader may take the next voxel,
/// which nothing but displacement excuses.
fn unsure(draw: &Draw, voxel: usize, [d, h, w]: [usize; 3]) -> bool {
    let at = [voxel / (h * w), voxel / w % h, voxel % w];
    let halfway = |p: &i32| {
        let over = (p + (1 << 15)) & 0xffff;
        over.min(0xffff - over) < 16
    };
    draw.spatial.elastic.is_some() && draw.spatial.position(at, [d, h, w]).iter().any(halfway)
}

/// Compares shaders and plain loops over some draws in all ways.
fn compare(
    gpu: &Gpu,
    name: &str,
    (case, size): (&Prepared, PatchSize),
    (augment, tolerance): (&Augment, f64),
    count: u64,
) {
    let of = |step: u64| {
        let focus = [Focus::Foreground, Focus::Anywhere][step as usize % 2];
        draw_patch(case, &size, focus, augment, &mut rng_for(11, step, 0)).unwrap()
    };
    let draws: Vec<Draw> = (0..count).map(of).collect();
    let expected: Vec<Patch> = draws.iter().map(|draw| make_patch(case, draw, &size)).collect();
    let layout = Layout::new(draws.len(), case.channels, size.patch);
    let voxels = layout.voxels();
    for (way, caps, budget) in ways(gpu, case, size) {
        let result = made(gpu, (&caps, budget), (case, size), augment, &draws);
        let (packed, labels, cached) = match result {
            // a box may be as large as the case
            Err(Error::Setting { .. }) if way == "small bindings" => continue,
            result => result.unwrap(),
        };
        assert_eq!(cached > 0, !["boxes", "small bindings"].contains(&way));
        let image = layout.unpack(&packed).unwrap();
        assert_eq!(layout.pack(&image).unwrap(), packed, "{name}: padding lanes");
        let images = image.chunks(case.channels * voxels);
        for (n, ((image, label), patch)) in
            images.zip(labels.chunks(voxels)).zip(&expected).enumerate()
        {
            let unsure = |index: usize| unsure(&draws[n], index % voxels, size.patch);
            for (index, (got, want)) in image.iter().zip(&patch.image).enumerate() {
                assert!(
                    (f64::from(*got) - want).abs() <= tolerance || unsure(index),
                    "{name}, {way}, voxel {index}: {got} where {want} is: {:?}",
                    draws[n]
                );
            }
            for (index, (got, want)) in label.iter().zip(&patch.label).enumerate() {
                assert!(
                    *got == u32::from(*want) || unsure(index),
                    "{name}, {way}, draw {n}, label {index}: {got} where {want} is"
                );
            }
        }
    }
}

fn sure(mut augment: Augment) -> Augment {
    augment.rotate_prob = 1.0;
    augment.scale_prob = 1.0;
    augment
}

const PLAIN: [f64; 3] = [1.0; 3];

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn plain_and_mirrored_patches_are_exact() {
    let gpu = common::gpu();
    let cases = [
        ("even", case(1, [20, 24, 28], PLAIN, 1), [16, 16, 16]),
        ("odd", case(1, [19, 23, 29], PLAIN, 2), [9, 13, 7]),
        ("larger than the case", case(1, [6, 23, 5], PLAIN, 3), [16, 12, 8]),
        ("one voxel deep", case(1, [1, 20, 17], PLAIN, 4), [1, 8, 8]),
        ("one voxel wide", case(1, [20, 17, 1], PLAIN, 5), [8, 8, 1]),
        ("two channels", case(2, [12, 13, 11], PLAIN, 6), [8, 9, 7]),
        ("four channels", case(4, [12, 13, 11], PLAIN, 7), [8, 8, 8]),
        ("six channels", case(6, [12, 13, 11], PLAIN, 8), [8, 16, 8]),
    ];
    for (name, case, patch) in cases {
        for mirror in [[0.0; 3], [1.0, 0.0, 1.0], [0.5; 3]] {
            let augment = Augment { mirror, ..Augment::none() };
            compare(&gpu, name, (&case, PatchSize::plain(patch)), (&augment, 0.0), 4);
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn rotated_scaled_deformed_and_resized_patches_match() {
    let gpu = common::gpu();
    let none = Augment::none;
    let full = std::f32::consts::PI;
    let elastic = |sigma: f32| Augment {
        elastic_prob: 1.0,
        elastic_alpha: [300.0, 750.0],
        elastic_sigma: [sigma, sigma + 2.0],
        ..none()
    };
    let all = sure(Augment { mirror: [0.5; 3], rotate_max: [full, 0.3, 0.5], ..elastic(3.0) });
    let settings = [
        ("scaled", Augment { scale_prob: 1.0, scale_range: [0.6, 1.6], ..none() }),
        ("rotated", Augment { rotate_prob: 1.0, rotate_max: [full, 0.0, 0.0], ..none() }),
        ("deformed", elastic(6.0)),
        ("all", all),
    ];
    let cases = [
        (case(1, [30, 26, 28], PLAIN, 1), [16, 15, 17], [16, 15, 17]),
        (case(1, [9, 33, 31], [3.0, 0.8, 0.9], 2), [8, 24, 20], [8, 24, 20]),
        (case(4, [14, 15, 16], PLAIN, 3), [9, 10, 11], [9, 10, 11]),
        (case(5, [1, 15, 16], PLAIN, 4), [1, 10, 11], [1, 10, 11]),
        (case(1, [30, 26, 28], PLAIN, 5), [24, 20, 16], [16, 16, 16]),
        (case(2, [30, 12, 28], PLAIN, 6), [12, 12, 20], [24, 6, 20]),
    ];
    for interpolation in [Interpolation::Linear, Interpolation::Cubic] {
        for (name, augment) in &settings {
            let augment = Augment { interpolation, ..augment.clone() };
            for (index, (case, crop, patch)) in cases.iter().enumerate() {
                let size = PatchSize { crop: *crop, patch: *patch };
                let name = format!("{name} {interpolation:?} {index}");
                compare(&gpu, &name, (case, size), (&augment, 2e-4), 4);
            }
        }
        // positions halfway between voxels, and thirds, are integers on both sides
        for (crop, patch) in [([24, 12, 16], [12, 24, 16]), ([12, 18, 10], [18, 12, 15])] {
            let augment = Augment { interpolation, mirror: [0.5; 3], ..none() };
            let case = case(1, [25, 26, 27], PLAIN, 7);
            compare(&gpu, "resized", (&case, PatchSize { crop, patch }), (&augment, 2e-5), 4);
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn intensities_match() {
    let gpu = common::gpu();
    let none = Augment::none;
    let all = Augment {
        interpolation: Interpolation::Cubic,
        blur_prob: 0.5,
        low_res_prob: 0.5,
        shift_prob: 0.5,
        noise_prob: 0.5,
        brightness_prob: 0.5,
        contrast_prob: 0.5,
        gamma_prob: 0.5,
        ..none()
    };
    let settings = [
        ("blurred", 1e-5, Augment { blur_prob: 1.0, blur_sigma: [0.3, 2.0], ..none() }),
        ("coarse", 1e-5, Augment { low_res_prob: 1.0, low_res_factor: [1.0, 3.0], ..none() }),
        ("brighter", 1e-5, Augment { brightness_prob: 1.0, ..none() }),
        ("contrast", 1e-5, Augment { contrast_prob: 1.0, ..none() }),
        ("gamma", 1e-4, Augment { gamma_prob: 1.0, ..none() }),
        ("shifted", 1e-5, Augment { shift_prob: 1.0, ..none() }),
        ("noisy", 3e-4, Augment { noise_prob: 1.0, noise_std: 1.0, ..none() }),
        ("all", 3e-4, sure(all)),
    ];
    let cases = [
        (case(1, [30, 26, 28], PLAIN, 1), [16, 15, 17]),
        (case(1, [1, 40, 41], PLAIN, 2), [1, 33, 29]),
        (case(4, [14, 15, 16], PLAIN, 3), [9, 10, 11]),
        (case(7, [12, 9, 5], PLAIN, 4), [6, 7, 5]),
        (case(1, [3, 3, 3], PLAIN, 5), [1, 1, 1]),
    ];
    for (name, tolerance, augment) in settings {
        for (index, (case, patch)) in cases.iter().enumerate() {
            let name = format!("{name} {index}");
            compare(&gpu, &name, (case, PatchSize::plain(*patch)), (&augment, tolerance), 4);
        }
    }
}

/// More groups than one dimension of a dispatch has.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn large_patches_match() {
    let gpu = common::gpu();
    let case = case(1, [40, 41, 42], PLAIN, 1);
    let augment = Augment {
        mirror: [0.5; 3],
        blur_prob: 1.0,
        low_res_prob: 1.0,
        brightness_prob: 1.0,
        contrast_prob: 1.0,
        ..Augment::none()
    };
    let size = PatchSize::plain([160, 168, 168]);
    assert!(size.patch.iter().product::<usize>() > 65_535 * 64);
    compare(&gpu, "large", (&case, size), (&augment, 1e-4), 1);
}

/// Patches of several cases with room for all, for one and for none.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_budget_changes_no_patch_and_is_kept() {
    let gpu = common::gpu();
    let shapes = [[20, 24, 28], [18, 22, 20], [21, 17, 23]];
    let cases: Vec<Prepared> =
        shapes.iter().enumerate().map(|(i, shape)| case(2, *shape, PLAIN, i as u64)).collect();
    let size = PatchSize::plain([16, 12, 20]);
    let source = Source::new(&cases, size);
    let augment = Augment { elastic_prob: 0.5, mirror: [0.5; 3], ..Augment::default() };
    let one = 9 * 20 * 24 * 28 + 1024;
    const COUNT: usize = 60;
    let mut results = Vec::new();
    for budget in [1 << 30, one, 9 * 18 * 22 * 20 + 1024, 0] {
        let mut patches =
            Patches::new(&gpu, &caps(&gpu), std::slice::from_ref(&source), &augment, budget)
                .unwrap();
        let out = Out::new(&gpu, COUNT, 2, size.patch);
        let mut cache = patches.cache();
        // long stretches of one case, so that others leave
        for at in 0..COUNT {
            let index = at / 15 * 2 % 3;
            let mut rng = rng_for(5, at as u64, 1);
            let draw =
                draw_patch(&cases[index], &size, Focus::Foreground, &augment, &mut rng).unwrap();
            let samples = Sample::ready(0, &source, vec![(index, draw)], &mut cache).unwrap();
            patches.make(&source, &samples[0], at, &out.target()).unwrap();
            assert!(patches.cached() <= budget);
        }
        assert_eq!(patches.cached() > 0, budget > 0);
        results.push(out.read(&gpu));
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

/// Memory is taken for a case when it comes, and for nothing after that.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_case_is_sent_once_and_steps_take_no_memory() {
    let gpu = common::gpu();
    let cases = [1, 2, 3].map(|seed| case(1, [16, 16, 16], PLAIN, seed));
    let size = PatchSize::plain([8; 3]);
    let source = Source::new(&cases, size);
    let augment = Augment { blur_prob: 0.5, gamma_prob: 0.5, noise_prob: 0.5, ..Augment::u2net() };
    let two = 2 * 5 * 16 * 16 * 16 + 1024;
    let mut patches =
        Patches::new(&gpu, &caps(&gpu), std::slice::from_ref(&source), &augment, two).unwrap();
    let out = Out::new(&gpu, 1, 1, size.patch);
    let mut cache = patches.cache();
    let mut step = 0;
    // whether a step on this case takes memory
    let mut takes = |index: usize| {
        let before = gpu.allocated();
        let mut rng = rng_for(1, step, 0);
        let draw = draw_patch(&cases[index], &size, Focus::Anywhere, &augment, &mut rng).unwrap();
        step += 1;
        let samples = Sample::ready(0, &source, vec![(index, draw)], &mut cache).unwrap();
        patches.make(&source, &samples[0], 0, &out.target()).unwrap();
        gpu.allocated() > before
    };
    // the third finds no room until the second was not asked for in more than four rounds
    let steps = [&[0, 1, 2][..], &[0; 11], &[2, 2, 2, 0, 1]].concat();
    let taken: Vec<usize> = (0..steps.len()).filter(|at| takes(steps[*at])).collect();
    assert_eq!(taken, [0, 1, 14]);
}

/// Training with room for every case and for none.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_cache_changes_no_weight_and_augmentation_does() {
    use program::{dataset, strs, succeed, train, weights};
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let of = |name: &str, more: &[&str]| {
        let run = folder.path().join(name);
        succeed(&strs(&train(&[&data], &run, &[&["--steps", "5"], more].concat())));
        weights(&run)
    };
    let cached = of("cached", &["--augment", "u2net"]);
    assert!(cached == of("sent", &["--augment", "u2net", "--volume-cache", "0"]));
    assert!(cached == of("one", &["--augment", "u2net", "--volume-cache", "48KiB"]));
    assert!(cached != of("plain", &["--augment", "none"]));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn what_an_adapter_cannot_hold_is_refused_at_the_start() {
    let gpu = common::gpu();
    let cases = [case(1, [8, 8, 8], PLAIN, 1)];
    let capacity = Capacity::new(&gpu, &caps(&gpu), 1 << 20);
    assert!(
        capacity.holds(&Facts::of(&cases[0]))
            && !Capacity::new(&gpu, &caps(&gpu), 100).holds(&Facts::of(&cases[0]))
    );
    let source = Source::new(&cases, PatchSize::plain([40_000, 1, 1]));
    let error =
        Patches::new(&gpu, &caps(&gpu), std::slice::from_ref(&source), &Augment::none(), 1 << 20)
            .err()
            .unwrap()
            .to_string();
    assert!(error.starts_with("patch, spacing: found"), "{error}");
    let augment = Augment { gamma_prob: 2.0, ..Augment::none() };
    let source = Source::new(&cases, PatchSize::plain([8; 3]));
    let error = Patches::new(&gpu, &caps(&gpu), std::slice::from_ref(&source), &augment, 1 << 20)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("augment.gamma_prob"), "{error}");
}
