//! Patches that a domain may grow to where there is memory: in the proportions of its median case, until they cover it.

use super::plan::DomainPlan;
use super::planning::{DEFAULT_VOXELS, PlanOptions, Recipe, Unify};
use crate::dataset::Fingerprint;

/// Halvings that an axis of a large patch may have.
pub const MOST_POOLS: usize = 5;
/// Voxels that a level of the network has at least along an axis.
const LEAST_LEVEL: usize = 4;
/// Share of a dataset's voxels that a batch may show at once, as in nnU-Net: with more the same cases come too often.
const BATCH_SHARE: f64 = 0.05;

/// What kept a patch from being larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// It covers the median case.
    MedianCase,
    /// The budget of memory.
    Memory,
    /// The largest buffer or binding that the adapter gives.
    Buffer,
    /// The plan of a run that is meant to be short.
    Quick,
    /// The setting `patch`.
    Patch,
    /// The setting `patch_voxels`.
    Voxels,
    /// What was published: a recipe, a preset or the common size that patches are resized to.
    Published,
}

/// A patch, D, H, W, with its halvings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchChoice {
    /// Voxels.
    pub patch: [usize; 3],
    /// Halvings.
    pub pools: [usize; 3],
}

impl PatchChoice {
    /// Voxels in all.
    pub fn voxels(&self) -> usize {
        self.patch.iter().product()
    }
}

/// The patches that a domain may have.
#[derive(Debug, Clone)]
pub struct Growth {
    median: [usize; 3],
    spacing: [f64; 3],
    /// Halvings, where the user fixes them.
    pools: Option<[usize; 3]>,
    most_pools: usize,
    most_voxels: usize,
    /// Voxels of all cases, about.
    dataset_voxels: usize,
    /// Ascending; the last covers the median case unless the user limits its voxels.
    ladder: Vec<PatchChoice>,
}

/// What settles the patch of a plan that memory does not; none where it may grow.
pub fn settled(plan: &DomainPlan, options: &PlanOptions) -> Option<Limit> {
    if options.patch.is_some() {
        return Some(Limit::Patch);
    }
    let published = plan.preset.is_some() && options.max_voxels.is_none();
    let resized = options.unify == Unify::Resize;
    let by_rule = options.recipe != Recipe::Default || published || resized;
    by_rule.then_some(Limit::Published)
}

impl Growth {
    /// Of a domain, at the spacing of its plan.
    pub fn new(fingerprint: &Fingerprint, plan: &DomainPlan, options: &PlanOptions) -> Self {
        let spacing = plan.spacing;
        let median = fingerprint.median_shape(spacing);
        let mut growth = Self {
            median,
            spacing,
            pools: options.pools,
            most_pools: options.max_pools.unwrap_or(MOST_POOLS).min(MOST_POOLS),
            most_voxels: options.max_voxels.unwrap_or(usize::MAX),
            dataset_voxels: fingerprint.shapes.len() * median.iter().product::<usize>(),
            ladder: Vec::new(),
        };
        let mut next = Some(growth.rounded(median));
        while let Some(choice) = next {
            if choice.voxels() <= growth.most_voxels {
                growth.ladder.push(choice);
            }
            next = growth.smaller(choice).filter(|c| c.voxels() > DEFAULT_VOXELS);
        }
        growth.ladder.reverse();
        growth
    }

    /// Patches in the proportions of the median case, ascending: larger ones than the small patches that suit every adapter, and the one
    /// that covers the median case. Where the user limits voxels, only those within; there may be none.
    pub fn ladder(&self) -> &[PatchChoice] {
        &self.ladder
    }

    /// Whether a patch covers the median case.
    pub fn covers(&self, patch: [usize; 3]) -> bool {
        (0..3).all(|axis| patch[axis] >= self.median[axis])
    }

    /// Patches that are one step larger along one axis and cover no more than the median case, the least covered axis first.
    pub fn larger(&self, of: PatchChoice) -> Vec<PatchChoice> {
        let mut axes = self.by_cover(of.patch);
        axes.reverse();
        let whole = self.rounded(self.median).patch;
        let grown = axes.into_iter().filter_map(|axis| {
            let mut size = of.patch;
            size[axis] = (size[axis] + (1 << of.pools[axis])).min(whole[axis]);
            let grown = self.rounded(size);
            let larger = grown.voxels() > of.voxels() && grown.voxels() <= self.most_voxels;
            larger.then_some(grown)
        });
        grown.collect()
    }

    /// Samples a step that a batch of such patches may have, at least `least`.
    pub fn most_samples(&self, patch: [usize; 3], least: usize) -> usize {
        let voxels = patch.iter().product::<usize>().max(1);
        let share = self.dataset_voxels as f64 * BATCH_SHARE / voxels as f64;
        (share.round() as usize).clamp(least, least.max(1024))
    }

    /// A patch of at least these sizes with the halvings that suit it: an axis much coarser than the finest is halved less often.
    fn rounded(&self, size: [usize; 3]) -> PatchChoice {
        let finest = self.spacing.iter().copied().fold(f64::MAX, f64::min);
        let pools = self.pools.unwrap_or([0, 1, 2].map(|axis| {
            let coarse = (self.spacing[axis] / finest).log2().floor().max(0.0) as usize;
            let most = self.most_pools.saturating_sub(coarse.min(2));
            (0..=most).rev().find(|p| size[axis] >> p >= LEAST_LEVEL).unwrap_or(0)
        }));
        let patch =
            [0, 1, 2].map(|axis| size[axis].max(LEAST_LEVEL).next_multiple_of(1 << pools[axis]));
        PatchChoice { patch, pools }
    }

    /// Axes by how much of the median case a patch covers, most first; of equals the longest in millimetres.
    fn by_cover(&self, patch: [usize; 3]) -> Vec<usize> {
        let cover = |axis: usize| patch[axis] as f64 / self.median[axis] as f64;
        let length = |axis: usize| patch[axis] as f64 * self.spacing[axis];
        let mut axes = vec![0, 1, 2];
        axes.sort_by(|a, b| {
            cover(*b).total_cmp(&cover(*a)).then(length(*b).total_cmp(&length(*a)))
        });
        axes
    }

    /// The next smaller patch: a step less along the axis that covers most of the median case, as nnU-Net shrinks its patches.
    fn smaller(&self, of: PatchChoice) -> Option<PatchChoice> {
        self.by_cover(of.patch).into_iter().find_map(|axis| {
            let step = 1 << of.pools[axis];
            let mut size = of.patch;
            size[axis] = size[axis].checked_sub(step).filter(|left| *left >= 2 * LEAST_LEVEL)?;
            let shrunk = self.rounded(size);
            (shrunk.voxels() < of.voxels()).then_some(shrunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(shape: [usize; 3], spacing: [f64; 3], cases: usize, options: &PlanOptions) -> Growth {
        let fingerprint = Fingerprint {
            shapes: vec![shape; cases],
            spacings: vec![spacing; cases],
            foreground: [-35.0, 70.0, 33.0, 17.0],
            is_ct: true,
        };
        let dataset = crate::dataset::Dataset { channels: vec!["CT".into()], ..Default::default() };
        let plan = DomainPlan::plan(&dataset, &fingerprint, options).unwrap();
        Growth::new(&fingerprint, &plan, options)
    }

    #[test]
    fn patches_grow_in_the_proportions_of_the_median_case() {
        let growth = growth([450, 512, 512], [1.0, 0.8, 0.8], 100, &PlanOptions::default());
        let ladder = growth.ladder();
        assert!(ladder.windows(2).all(|pair| pair[0].voxels() < pair[1].voxels()));
        for PatchChoice { patch, pools } in ladder {
            assert!((0..3).all(|a| patch[a] % (1 << pools[a]) == 0 && patch[a] >> pools[a] >= 4));
            let covers = [0, 1, 2].map(|a| patch[a] as f64 / [450.0, 512.0, 512.0][a]);
            let (least, most) =
                covers.iter().fold((f64::MAX, 0f64), |(a, b), c| (a.min(*c), b.max(*c)));
            assert!(most - least <= 33.0 / 450.0, "{patch:?} covers {covers:?}");
        }
        let (first, last) = (ladder[0], ladder[ladder.len() - 1]);
        assert!(first.voxels() > DEFAULT_VOXELS && first.voxels() < 2 * DEFAULT_VOXELS);
        assert!(growth.covers(last.patch) && last.pools == [5; 3], "{last:?}");
        // one step more along the least covered axis, then along the others
        let larger = growth.larger(first);
        assert_eq!(larger.len(), 3);
        assert!(growth.larger(last).is_empty());
    }

    #[test]
    fn coarse_axes_are_halved_less_often_and_small_cases_are_covered() {
        let thick = growth([90, 512, 512], [5.0, 0.8, 0.8], 9, &PlanOptions::default());
        assert!(thick.ladder().iter().all(|c| c.pools[0] <= 3 && c.pools[0] < c.pools[1]));
        let small = growth([36, 50, 35], [1.0; 3], 200, &PlanOptions::default());
        assert_eq!(small.ladder(), [PatchChoice { patch: [40, 56, 40], pools: [3; 3] }]);
        // a twentieth of the voxels of 200 cases
        assert_eq!(small.most_samples([40, 56, 40], 2), 7);
        assert_eq!(small.most_samples([400; 3], 2), 2);
    }

    #[test]
    fn what_the_user_fixes_holds() {
        let pools = PlanOptions { pools: Some([1, 2, 2]), ..PlanOptions::default() };
        let fixed = growth([90, 512, 512], [5.0, 0.8, 0.8], 9, &pools);
        assert!(fixed.ladder().iter().all(|c| c.pools == [1, 2, 2]));
        let voxels = PlanOptions { max_voxels: Some(500_000), ..PlanOptions::default() };
        let limited = growth([90, 512, 512], [5.0, 0.8, 0.8], 9, &voxels);
        let most = limited.ladder()[limited.ladder().len() - 1];
        assert!(most.voxels() <= 500_000 && most.voxels() > 400_000, "{most:?}");
        assert!(limited.larger(most).iter().all(|c| c.voxels() <= 500_000));
        let few = PlanOptions { max_pools: Some(2), ..PlanOptions::default() };
        let shallow = growth([90, 512, 512], [5.0, 0.8, 0.8], 9, &few);
        assert!(shallow.ladder().iter().all(|c| c.pools == [0, 2, 2]));
    }
}
