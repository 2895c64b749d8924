//! Unlabelled classes merged into background: the operation alone, and before each loss.

use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::ops;
use u2seg::low_level::ops::LossWeights;
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::Tensor;

use super::harness::*;
use crate::common;

struct Case {
    classes: usize,
    spatial: [usize; 3],
    /// Unlabelled classes of each sample.
    unlabelled: Vec<Vec<usize>>,
}

fn cases() -> Vec<Case> {
    let case = |classes, spatial, unlabelled: &[&[usize]]| Case {
        classes,
        spatial,
        unlabelled: unlabelled.iter().map(|classes| classes.to_vec()).collect(),
    };
    vec![
        case(2, [1, 1, 1], &[&[]]),
        case(2, [3, 5, 7], &[&[1]]),
        case(3, [4, 4, 6], &[&[2], &[1]]),
        // a class that no sample labels
        case(6, [4, 4, 4], &[&[3, 5], &[], &[1, 3]]),
        // classes of several words and blocks
        case(70, [2, 4, 4], &[&[31, 32, 33, 69], &[1, 2, 64]]),
        case(3, [17, 16, 23], &[&[1], &[]]),
    ]
}

impl Case {
    fn voxels(&self) -> usize {
        self.spatial.iter().product()
    }

    fn logits(&self) -> Tensor {
        let x = tensor(self.unlabelled.len(), self.classes, self.spatial, 7);
        x.map(|v| f64::from((v * 3.0) as f32))
    }

    fn masks(&self) -> Vec<[u32; 8]> {
        let mask = |classes: &Vec<usize>| {
            let mut words = [0; 8];
            classes.iter().for_each(|k| words[k / 32] |= 1 << (k % 32));
            words
        };
        self.unlabelled.iter().map(mask).collect()
    }

    /// Labels of the classes that a sample has; some voxels are ignored.
    fn labels(&self) -> Vec<u8> {
        let mut all = labels(self.unlabelled.len() * self.voxels(), self.classes, 8);
        for (labels, classes) in all.chunks_mut(self.voxels()).zip(&self.unlabelled) {
            for label in labels.iter_mut().filter(|l| classes.contains(&usize::from(**l))) {
                *label = 0;
            }
        }
        all.iter_mut().step_by(9).for_each(|l| *l = 255);
        all
    }

    /// Merged logits are in f32: they do not fit the bindings that just hold a sample in f16.
    fn plans(&self, gpu: &Gpu) -> Vec<(&'static str, Way)> {
        let mut plans = plans(gpu, self.voxels() * self.classes.div_ceil(4));
        plans.retain(|(plan, _)| *plan != "halves in small bindings");
        plans
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn merged_logits_and_their_gradient() {
    let gpu = common::gpu();
    for (index, case) in cases().iter().enumerate() {
        for (plan, caps) in case.plans(&gpu) {
            let (x, masks) = (as_stored(&caps, &case.logits()), case.masks());
            let y = oracle::merge_forward(&x, &masks);
            let dy = as_stored(&caps, &tensor(x.shape.n, x.shape.c, case.spatial, 9));
            let mut rig = Rig::new(&gpu, &caps);
            let (value, words) = (rig.input(&x), rig.raw("unlabelled", masks.concat()));
            let merged = ops::merge_unlabelled(&mut rig.graph, value, words).unwrap();
            rig.in_f32(merged);
            rig.graph.keep(merged);
            let p = ops::softmax(&mut rig.graph, merged).unwrap();
            rig.in_f32(p);
            rig.graph.keep(p);
            let grads = rig.backward(merged, &dy);
            let dx = rig.kept_gradient(&grads, value);
            let ran = rig.run();
            let what = format!("merge case {index} planned for {plan}");
            let (found, p) = (ran.tensor(merged), ran.tensor(p));
            for ((found, expected), p) in found.iter().zip(&y.data).zip(p) {
                if *expected == -1e30 {
                    assert!(*found == f64::from(-1e30f32) && p == 0.0, "{what}: {found} {p}");
                } else {
                    assert!((found - expected).abs() < 4e-6, "{what}: {found} {expected}");
                }
            }
            let expected = oracle::merge_backward(&x, &masks, &dy);
            ran.close(&format!("{what} gradient"), &ran.tensor(dx), &expected.data, 1e-5);
        }
    }
}

fn check(gpu: &Gpu, caps: &Way, case: &Case, w: LossWeights, what: &str) {
    let (x, t, masks) = (as_stored(caps, &case.logits()), case.labels(), case.masks());
    let y = oracle::merge_forward(&x, &masks);
    let parts = [
        (w.cross_entropy, oracle::cross_entropy(&y, &t)),
        (w.focal, oracle::focal(&y, &t)),
        (w.dice, oracle::soft_dice(&y, &t, w.dice_background)),
        (w.lovasz, oracle::lovasz_softmax(&y, &t, None)),
    ];
    let mut rig = Rig::new(gpu, caps);
    let (value, target) = (rig.input(&x), rig.labels(&t));
    let words = rig.raw("unlabelled", masks.concat());
    let merged = ops::merge_unlabelled(&mut rig.graph, value, words).unwrap();
    rig.in_f32(merged);
    let loss = ops::segmentation_loss(&mut rig.graph, merged, target, w).unwrap();
    rig.graph.keep(loss);
    let grads = rig.graph.backward(loss, loss).unwrap();
    let dx = rig.kept_gradient(&grads, value);
    let ran = rig.run();
    let found: Vec<f32> = ran.words(loss);
    let mut dy = Tensor::zeros(x.shape);
    for (i, (weight, (loss, d))) in parts.into_iter().enumerate() {
        dy = oracle::add_forward(&dy, &d.map(|v| v * f64::from(weight)));
        let error = (f64::from(found[i + 1]) - loss).abs();
        let close = weight == 0.0 || error <= 2e-5 * loss.abs().max(1e-2);
        assert!(close, "{what}: loss {i} is {}, not {loss}", found[i + 1]);
    }
    let expected = oracle::merge_backward(&x, &masks, &dy);
    ran.close(&format!("{what} gradient"), &ran.tensor(dx), &expected.data, 2e-4);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn losses_of_merged_classes() {
    let gpu = common::gpu();
    let none = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };
    let weights = [
        LossWeights::ce(),
        LossWeights { focal: 1.0, ..none },
        LossWeights { dice: 1.0, ..none },
        LossWeights { lovasz: 1.0, ..none },
        LossWeights { cross_entropy: 0.5, dice: 2.0, ..LossWeights::u2net() },
    ];
    for (index, case) in cases().iter().enumerate() {
        for (plan, caps) in case.plans(&gpu) {
            for (mix, w) in weights.into_iter().enumerate() {
                // the sort's arrays span a whole batch, and samples must start where a binding may
                let fits = w.lovasz == 0.0 && case.voxels().is_multiple_of(16);
                if !plan.contains("small bindings") || case.unlabelled.len() == 1 || fits {
                    let what = format!("loss {mix} of merge case {index} planned for {plan}");
                    check(&gpu, &caps, case, w, &what);
                }
            }
        }
    }
}
