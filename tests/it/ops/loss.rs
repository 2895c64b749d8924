//! Softmax, argmax and the losses with their gradient to the logits.

use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::ops;
use u2seg::low_level::ops::LossWeights;
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::Tensor;

use super::harness::*;
use crate::common;

struct Case {
    n: usize,
    classes: usize,
    spatial: [usize; 3],
    /// What the logits are multiplied by.
    scale: f64,
    /// Rounds logits to multiples of this, so that errors tie; 0 leaves them.
    step: f64,
    /// Label written over some voxels.
    odd_label: Option<u8>,
    /// Every how manieth voxel is written over with it.
    every: usize,
}

fn case(n: usize, classes: usize, spatial: [usize; 3]) -> Case {
    Case { n, classes, spatial, scale: 3.0, step: 0.0, odd_label: None, every: 10 }
}

fn cases() -> Vec<Case> {
    vec![
        case(1, 2, [1, 1, 1]),
        case(1, 2, [3, 5, 7]),
        case(2, 3, [4, 5, 6]),
        case(2, 5, [3, 3, 9]),
        case(1, 11, [4, 7, 5]),
        Case { scale: 60.0, ..case(2, 4, [3, 4, 5]) },
        // two classes: the errors of equal differences are then equal in f32 as in f64
        Case { step: 0.5, scale: 2.0, ..case(2, 2, [6, 7, 8]) },
        Case { scale: 0.0, ..case(1, 2, [5, 6, 7]) },
        Case { odd_label: Some(10), ..case(2, 3, [4, 5, 7]) },
        Case { odd_label: Some(10), ..case(1, 12, [4, 5, 7]) },
        Case { odd_label: Some(77), ..case(1, 4, [5, 5, 5]) },
        Case { odd_label: Some(255), every: 1, ..case(2, 3, [4, 4, 5]) },
        case(2, 3, [4, 4, 5]),
        case(3, 6, [4, 3, 4]),
        // several tiles of the sort and of the scan
        case(2, 3, [17, 19, 23]),
    ]
}

fn logits(case: &Case) -> Tensor {
    let mut x =
        tensor(case.n, case.classes, case.spatial, 7).map(|v| f64::from((v * case.scale) as f32));
    if case.step > 0.0 {
        let voxels: usize = case.spatial.iter().product();
        for (i, v) in x.data.iter_mut().enumerate() {
            // an odd offset between classes keeps p and 1-p apart, which tie in exact arithmetic alone
            let offset = 0.1875 * (i / voxels % case.classes) as f64;
            *v = (*v / case.step).round() * case.step + offset;
        }
    }
    x
}

/// The plans that a case is run for: in small bindings a sample has to start where a binding may.
fn plans_of(gpu: &Gpu, case: &Case) -> Vec<(&'static str, Way)> {
    let voxels: usize = case.spatial.iter().product();
    let mut plans = plans(gpu, voxels * case.classes.div_ceil(4));
    plans.retain(|(plan, caps)| {
        let step = if halves(caps) { 32 } else { 16 };
        !plan.contains("small bindings") || case.n == 1 || voxels.is_multiple_of(step)
    });
    plans
}

fn truth(case: &Case) -> Vec<u8> {
    let mut truth = labels(case.n * case.spatial.iter().product::<usize>(), case.classes, 8);
    if let Some(label) = case.odd_label {
        truth.iter_mut().step_by(case.every).for_each(|l| *l = label);
    }
    truth
}

const NONE: LossWeights = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };

/// Weights of each test and the factor of each loss in the sum.
fn mixtures() -> Vec<LossWeights> {
    vec![
        LossWeights { cross_entropy: 1.0, ..NONE },
        LossWeights { focal: 1.0, ..NONE },
        LossWeights { dice: 1.0, ..NONE },
        LossWeights { dice: 1.0, dice_background: true, ..NONE },
        LossWeights { lovasz: 1.0, ..NONE },
        LossWeights { lovasz: 1.0, lovasz_leaves_out_10: true, ..NONE },
        LossWeights { cross_entropy: 0.5, focal: 2.0, dice: 0.25, lovasz: 1.5, ..NONE },
    ]
}

/// Weighted losses (total first, then the four alone) and the gradient of the total.
fn expected(x: &Tensor, t: &[u8], w: &LossWeights) -> ([f64; 5], Tensor) {
    let parts = [
        (w.cross_entropy, oracle::cross_entropy(x, t)),
        (w.focal, oracle::focal(x, t)),
        (w.dice, oracle::soft_dice(x, t, w.dice_background)),
        (w.lovasz, oracle::lovasz_softmax(x, t, w.lovasz_leaves_out_10.then_some(10))),
    ];
    let mut losses = [0.0; 5];
    let mut gradient = Tensor::zeros(x.shape);
    for (i, (weight, (loss, d))) in parts.into_iter().enumerate() {
        let weight = f64::from(weight);
        losses[0] += weight * loss;
        losses[i + 1] = loss;
        gradient = oracle::add_forward(&gradient, &d.map(|v| v * weight));
    }
    (losses, gradient)
}

fn check_losses(gpu: &Gpu, caps: &Way, case: &Case, w: LossWeights, what: &str) {
    let (x, t) = (as_stored(caps, &logits(case)), truth(case));
    let (losses, gradient) = expected(&x, &t, &w);
    let mut rig = Rig::new(gpu, caps);
    let (value, target) = (rig.input(&x), rig.labels(&t));
    let loss = ops::segmentation_loss(&mut rig.graph, value, target, w).unwrap();
    rig.graph.keep(loss);
    let grads = rig.graph.backward(loss, loss).unwrap();
    let dx = rig.kept_gradient(&grads, value);
    let ran = rig.run();
    let found: Vec<f32> = ran.words(loss);
    for (i, name) in ["total", "cross-entropy", "focal", "Dice", "Lovász"].iter().enumerate() {
        // a loss without weight may cost nothing and then reads zero
        let weights = [1.0, w.cross_entropy, w.focal, w.dice, w.lovasz];
        if weights[i] != 0.0 {
            let error = (f64::from(found[i]) - losses[i]).abs();
            assert!(
                error <= 2e-5 * losses[i].abs().max(1e-2),
                "{what} {name}: {} {losses:?}",
                found[i]
            );
        }
    }
    ran.close(&format!("{what} gradient"), &ran.tensor(dx), &gradient.data, 2e-4);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn losses_and_their_gradients() {
    let gpu = common::gpu();
    for (index, case) in cases().iter().enumerate() {
        for (plan, caps) in plans_of(&gpu, case) {
            // the sort's arrays span a whole batch: these plans are about the logits
            let lovasz_fits = !plan.contains("small bindings");
            for (mix, w) in mixtures().into_iter().enumerate() {
                if w.lovasz == 0.0 || lovasz_fits {
                    let what = format!("loss {mix} of case {index} planned for {plan}:");
                    check_losses(&gpu, &caps, case, w, &what);
                }
            }
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn probabilities_and_classes() {
    let gpu = common::gpu();
    for (index, case) in cases().iter().enumerate() {
        for (plan, caps) in plans_of(&gpu, case) {
            let x = as_stored(&caps, &logits(case));
            let mut rig = Rig::new(&gpu, &caps);
            let value = rig.input(&x);
            let p = ops::softmax(&mut rig.graph, value).unwrap();
            let best = ops::argmax(&mut rig.graph, value).unwrap();
            rig.graph.keep(p);
            rig.graph.keep(best);
            let ran = rig.run();
            let what = format!("case {index} planned for {plan}");
            ran.close(&what, &ran.tensor(p), &oracle::softmax_forward(&x).data, 2e-6);
            let found: Vec<u32> = ran.words(best);
            let classes: Vec<u32> = oracle::argmax(&x).into_iter().map(u32::from).collect();
            assert_eq!(found[..classes.len()], classes, "{what}");
        }
    }
}
