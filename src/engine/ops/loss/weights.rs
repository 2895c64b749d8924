//! Weights of the losses.

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

    /// Cross-entropy alone.
    pub const fn ce() -> Self {
        Self { dice: 0.0, ..Self::dice_ce() }
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
