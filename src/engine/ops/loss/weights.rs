//! The losses that can be summed: their weights, what the kernels are told of them, and what they come to.

use crate::engine::graph::Dispatch;

/// Weights of the losses' sum; a weight of zero costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossWeights {
    /// Mean cross-entropy over voxels.
    pub cross_entropy: f32,
    /// Focal loss, gamma 2, its factor constant for the gradient as in the reference.
    pub focal: f32,
    /// Soft Dice over the batch.
    pub dice: f32,
    /// Lovász-softmax over all classes of the whole batch.
    pub lovasz: f32,
    /// Whether the soft Dice counts class 0.
    pub dice_background: bool,
    /// Whether the Lovász-softmax leaves out label 10, as the published code does.
    #[serde(default = "as_published")]
    pub lovasz_leaves_out_10: bool,
}

/// What runs did whose settings do not say.
fn as_published() -> bool {
    true
}

impl LossWeights {
    /// The published loss without its peculiarity: Lovász-softmax plus focal.
    pub const fn u2net() -> Self {
        Self { cross_entropy: 0.0, focal: 1.0, dice: 0.0, lovasz: 1.0, ..Self::dice_ce() }
    }

    /// The published loss, which takes label 10 for no class in the Lovász-softmax.
    pub const fn published() -> Self {
        Self { lovasz_leaves_out_10: true, ..Self::u2net() }
    }

    /// Cross-entropy plus soft Dice of the foreground.
    pub const fn dice_ce() -> Self {
        Self {
            cross_entropy: 1.0,
            focal: 0.0,
            dice: 1.0,
            lovasz: 0.0,
            dice_background: false,
            lovasz_leaves_out_10: false,
        }
    }

    /// Whether it can be trained with: no term counts less than nothing, and some count.
    pub fn is_usable(&self) -> bool {
        let terms = [self.cross_entropy, self.focal, self.dice, self.lovasz];
        terms.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
            && terms.iter().any(|weight| *weight > 0.0)
    }

    /// Cross-entropy alone.
    pub const fn ce() -> Self {
        Self { dice: 0.0, ..Self::dice_ce() }
    }
}

/// One loss of a sum: its share of the total is `weight` times `value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossTerm {
    /// As in settings and logs, such as `cross_entropy`.
    pub name: &'static str,
    /// As in [`LossWeights`].
    pub weight: f32,
    /// The loss alone.
    pub value: f32,
}

/// Losses of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub total: f32,
    /// The losses that it is the sum of; what costs something of its own is computed, else 0, where its weight is above 0.
    pub terms: Vec<LossTerm>,
}

impl Losses {
    /// A loss of the sum by its name.
    pub fn term(&self, name: &str) -> Option<&LossTerm> {
        self.terms.iter().find(|term| term.name == name)
    }
}

/// A loss as the kernels know it.
struct Weighed {
    name: &'static str,
    /// Its weight's name in `loss_terms.wgsl`.
    member: &'static str,
    weight: f32,
}

/// Losses of single voxels, which come first, as many as in `loss_terms.wgsl`.
pub(super) const VOXEL_LOSSES: usize = 2;

/// Losses of overlap, which come next, as many as there.
const OVERLAP_LOSSES: usize = 1;

/// Losses in all, Lovász-softmax last.
const LOSSES: usize = VOXEL_LOSSES + OVERLAP_LOSSES + 1;

impl LossWeights {
    /// Words of a loss's value that [`LossWeights::losses`] takes.
    pub const WORDS: usize = 1 + LOSSES;

    /// In the order of a loss's value.
    fn all(&self) -> [Weighed; LOSSES] {
        let weighed = |name, member, weight| Weighed { name, member, weight };
        [
            weighed("cross_entropy", "w_ce", self.cross_entropy),
            weighed("focal", "w_focal", self.focal),
            weighed("dice", "w_dice", self.dice),
            weighed("lovasz", "w_lovasz", self.lovasz),
        ]
    }

    /// Whether regions, which may overlap, can be trained with it: every loss of the sum has a form for them.
    pub fn fits_regions(&self) -> bool {
        let for_regions = ["cross_entropy", "dice"];
        self.all().iter().all(|loss| loss.weight == 0.0 || for_regions.contains(&loss.name))
    }

    /// What the first words of a loss's value say, in their order.
    pub fn losses(&self, words: &[f32; Self::WORDS]) -> Losses {
        let [total, values @ ..] = words;
        let terms = self.all().into_iter().zip(values);
        let terms = terms.map(|(Weighed { name, weight, .. }, value)| LossTerm {
            name,
            weight,
            value: *value,
        });
        Losses { total: *total, terms: terms.collect() }
    }

    /// Tells a kernel the weights.
    pub(super) fn set(&self, dispatch: Dispatch) -> Dispatch {
        let all = self.all().into_iter();
        all.fold(dispatch, |dispatch, loss| dispatch.param_f32(loss.member, loss.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs from before the field was there left label 10 out.
    #[test]
    fn older_settings_leave_label_10_out() {
        let older =
            "cross_entropy = 0.0\nfocal = 1.0\ndice = 0.0\nlovasz = 1.0\ndice_background = false";
        assert_eq!(toml::from_str::<LossWeights>(older).unwrap(), LossWeights::published());
        for weights in [LossWeights::published(), LossWeights::u2net(), LossWeights::dice_ce()] {
            let text = toml::to_string(&weights).unwrap();
            assert!(text.contains("lovasz_leaves_out_10"), "{text}");
            assert_eq!(toml::from_str::<LossWeights>(&text).unwrap(), weights);
        }
    }
}
