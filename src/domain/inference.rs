//! What a plan says of inference: how windows are weighted, and what is done to masks.

/// Clean-up of one class of a predicted mask.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CleanUp {
    /// Class index.
    pub class: u8,
    /// In order.
    pub steps: Vec<CleanUpStep>,
}

/// One clean-up step, applied by [`segment::clean_up`](crate::segment::clean_up).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CleanUpStep {
    /// Dilation, then erosion, this many voxels far (diamond neighbourhood).
    Closing(usize),
    /// The same with neighbours over faces and edges, as published.
    ClosingEdges(usize),
    /// Keep the largest component.
    Largest,
    /// Keep the largest component, and the second where it has at least this fraction of the largest.
    LargestTwo(f64),
    /// Fill background that the class encloses.
    FillHoles,
}

impl std::fmt::Display for CleanUpStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closing(reach) => write!(f, "closing by {reach} voxels"),
            Self::ClosingEdges(reach) => write!(f, "closing by {reach} voxels, over edges too"),
            Self::Largest => f.write_str("largest component kept"),
            Self::LargestTwo(share) => {
                write!(f, "largest component kept, and the second from {share} of it on")
            }
            Self::FillHoles => f.write_str("holes filled"),
        }
    }
}

/// Voxels that a closing reaches at most: it works on so many more around a class.
const FURTHEST: usize = 64;

impl CleanUpStep {
    /// Whether a plan may have it.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::LargestTwo(share) => (0.0..=1.0).contains(share),
            _ => self.reach() <= FURTHEST,
        }
    }

    /// Voxels that it reaches beyond the class.
    pub(super) fn reach(&self) -> usize {
        match self {
            Self::Closing(far) | Self::ClosingEdges(far) => *far,
            Self::Largest | Self::LargestTwo(_) | Self::FillHoles => 0,
        }
    }
}

/// How much the voxels of a window count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Weighting {
    /// A Gaussian about the centre.
    #[default]
    Gaussian,
    /// One minus the distance to the centre, as published.
    Linear,
}
