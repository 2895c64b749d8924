//! What the flags of training may be.

use clap::ValueEnum;

use crate::cli::args::size;
use crate::dataset::Fold;
use crate::dataset::prepared::Place;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ModeArg {
    /// Each dataset trains a network of its own, with plain convolutions.
    Independent,
    /// Shared convolutions; each domain has its own norms, first and last layer.
    Shared,
    /// Shared pointwise convolutions, and an adapter for each domain.
    Universal,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DownsampleArg {
    /// By a shared 3×3×3 convolution of stride 2, as published.
    Full,
    /// By the domain's own depthwise 3×3×3 and a shared pointwise convolution (universal mode): far fewer parameters.
    Separable,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AdapterArg {
    /// A depthwise 3×3×3 convolution of its own before each shared pointwise one.
    Separable,
    /// A pointwise convolution of its own after each shared 3×3×3 one.
    Series,
    /// A pointwise convolution of its own beside each shared 3×3×3 one.
    Parallel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LossArg {
    /// Cross-entropy plus soft Dice.
    DiceCe,
    /// Cross-entropy.
    Ce,
    /// Lovász-softmax plus focal loss, as published.
    U2net,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OptimizerArg {
    /// Adam.
    Adam,
    /// Stochastic gradient descent with Nesterov momentum 0.99.
    Sgd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RecipeArg {
    /// Dice and cross-entropy, a learning rate that falls to zero, patches planned from the data.
    Default,
    /// As published: Lovász-softmax plus focal loss, Adam at 3e-4 halved on plateaus, its augmentation, normalisation and
    /// window weights, and its plans for six tasks.
    U2net,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum UnifyArg {
    /// Each domain keeps its own patch.
    Native,
    /// Each domain's patch is resized to --patch, or 128,128,128, as published: images by cubic, labels by nearest
    /// neighbour interpolation.
    Resize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AugmentArg {
    /// Rotation, scaling, blur, lower resolution, brightness, noise: what suits most organs.
    Default,
    /// As published: deformation, rotation about the depth axis, scaling, mirroring left to right.
    U2net,
    /// No augmentation.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BudgetArg {
    /// 1,000 steps of small patches, at most 100,000 voxels.
    Quick,
    /// 10,000 steps of the largest patches that the GPU's memory allows.
    Standard,
    /// 50,000 steps of such patches.
    Thorough,
}

/// `--fold`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folds {
    One(Fold),
    All,
}

impl std::str::FromStr for Folds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse()
            .map(Self::One)
            .map_err(|_| format!("expected a fold such as 0, all, auto or none, found {text}"))
    }
}

/// `--hold-out`: one number of cases, one share of them, or names. What begins with a zero is a name.
pub fn held_out(words: &[String]) -> Fold {
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
        digits && (text.len() == 1 || !text.starts_with('0'))
    };
    let drawn = match words {
        [one] if number(one) => one.parse().ok().map(Fold::Count),
        [one] => one.strip_suffix('%').filter(|n| number(n)).map(|n| {
            // what is too much for the type is too much for a share
            Fold::Percent(n.parse().unwrap_or(u8::MAX))
        }),
        _ => None,
    };
    drawn.unwrap_or_else(|| Fold::HoldOut(words.to_vec()))
}

/// `--volume-cache`: bytes with a unit, or 0.
pub fn volume_cache(text: &str) -> std::result::Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { size(text) }
}

/// `--cache`: a folder, made absolute so that a run goes on from anywhere, or a word.
pub fn place(text: &str) -> std::result::Result<Place, String> {
    match Place::from(text.to_string()) {
        Place::Folder(folder) if text.is_empty() => {
            Err(format!("expected a folder, auto or none, found {folder:?}"))
        }
        Place::Folder(folder) => {
            std::path::absolute(&folder).map(Place::Folder).map_err(|e| e.to_string())
        }
        word => Ok(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_held_out_by_number_share_or_name() {
        let of =
            |words: &[&str]| held_out(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        let names = |words: &[&str]| Fold::HoldOut(words.iter().map(|w| w.to_string()).collect());
        assert_eq!(of(&["5"]), Fold::Count(5));
        assert_eq!(of(&["10%"]), Fold::Percent(10));
        assert_eq!(of(&["900%"]), Fold::Percent(u8::MAX));
        for words in [&["case_5"][..], &["005"], &["5", "6"], &["a%"]] {
            assert_eq!(of(words), names(words));
        }
    }
}
