//! The kernels that tell how sure a segmentation is, against the definitions in f64.

use super::measure::Tolerance;
use super::net::random;
use super::slab::{Reads, SlabCase, Step, bits};
use crate::engine::ops::uncertainty::{Entropy, Spread};

const VECTORS: usize = 160; // parts of buffers begin at multiples of 256 bytes

/// Probabilities, some of them 0 and 1.
fn probabilities(classes: usize, regions: bool) -> Vec<f64> {
    let voxels = 4 * VECTORS;
    let mut maps: Vec<f64> = random(classes * voxels, 11).iter().map(|v| v.abs().fract()).collect();
    for voxel in 0..voxels {
        let at = |class: usize| class * voxels + voxel;
        if voxel % 9 == 0 {
            (0..classes).for_each(|class| maps[at(class)] = f64::from(class == voxel % classes));
        }
        let sum: f64 = (0..classes).map(|class| maps[at(class)]).sum();
        if !regions && sum > 0.0 {
            (0..classes).for_each(|class| maps[at(class)] /= sum);
        }
    }
    // as f32 holds them
    maps.iter().map(|p| f64::from(*p as f32)).collect()
}

/// All classes at once, or in two groups.
fn entropy(classes: usize, regions: bool, grouped: bool) -> SlabCase {
    let (maps, voxels) = (probabilities(classes, regions), 4 * VECTORS);
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let of = |p: f64| if regions { term(p) + term(1.0 - p) } else { term(p) };
    let most = if regions { classes as f64 * 2f64.ln() } else { (classes as f64).ln() };
    let total = |voxel: usize| -> f64 {
        (0..classes).map(|class| of(maps[class * voxels + voxel])).sum::<f64>() / most
    };
    let half = if grouped { classes / 2 } else { classes };
    let groups = [(0, half), (half, classes - half)];
    let steps = groups.into_iter().filter(|(_, count)| *count > 0).map(|(first, count)| {
        let call = Entropy {
            vectors: VECTORS,
            classes: count,
            first: first == 0,
            outputs: classes,
            regions,
        };
        Step::of_part(move |caps| call.call(caps), "maps", [first * voxels, count * voxels])
    });
    let what = if regions { "regions" } else { "classes" };
    SlabCase {
        name: format!("entropy of {classes} {what}, grouped {grouped}"),
        steps: steps.collect(),
        buffers: vec![("maps", bits(&maps)), ("out", bits(&vec![0.5; voxels]))],
        out: "out",
        reads: Reads::Floats,
        expected: (0..voxels).map(total).collect(),
        tolerance: Tolerance::Absolute(2e-6),
    }
}

/// Predictions one after another; from the second on all are equal where `alike`.
fn spread(members: usize, alike: bool) -> SlabCase {
    let voxels = 4 * VECTORS;
    let all = random(members * voxels, 12);
    let value = |member: usize, voxel: usize| {
        let member = if alike { 0 } else { member };
        f64::from((0.5 + all[member * voxels + voxel] / 10.0) as f32)
    };
    let deviation = |voxel: usize| {
        let each = || (0..members).map(|member| value(member, voxel));
        let mean = each().sum::<f64>() / members as f64;
        (each().map(|p| (p - mean).powi(2)).sum::<f64>() / members as f64).sqrt()
    };
    let steps = (0..members).map(|count| {
        let call = Spread { vectors: VECTORS, count, last: count + 1 == members };
        Step::of_part(move |caps| call.call(caps), "maps", [count * voxels, voxels])
    });
    let maps: Vec<f64> = (0..members)
        .flat_map(|member| (0..voxels).map(move |v| (member, v)))
        .map(|(m, v)| value(m, v))
        .collect();
    SlabCase {
        name: format!("spread of {members} predictions, alike {alike}"),
        steps: steps.collect(),
        buffers: vec![
            ("maps", bits(&maps)),
            ("mean", bits(&vec![7.0; voxels])),
            ("squares", bits(&vec![7.0; voxels])),
        ],
        out: "squares",
        reads: Reads::Floats,
        expected: (0..voxels).map(deviation).collect(),
        tolerance: Tolerance::Absolute(if alike { 1e-7 } else { 1e-6 }),
    }
}

/// Entropies, and how far predictions lie apart.
pub fn uncertain() -> Vec<SlabCase> {
    vec![
        entropy(3, false, false),
        entropy(9, false, true),
        entropy(2, true, false),
        entropy(6, true, true),
        spread(2, false),
        spread(8, false),
        spread(3, true),
    ]
}
