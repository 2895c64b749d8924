//! A prepared case as training sees it: facts that drawing a patch needs, and voxels that are read box by box.

use std::borrow::Cow;

use crate::base::{Error, Result};
use crate::imaging;
use crate::imaging::VoxelBox;

/// What drawing a patch needs to know of a case, without its voxels.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Image channels.
    pub channels: usize,
    /// D, H, W on the domain's spacing.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// What patches hold beyond the case.
    pub outside: f32,
    /// Points near voxels that somebody labelled; none where all are labelled.
    pub annotated: usize,
    /// Points of each foreground class.
    pub foreground: Vec<usize>,
    /// Which of these has the fewest voxels, of those that the case has.
    pub smallest: Option<usize>,
}

/// A list of points of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// Near voxels that somebody labelled.
    Annotated,
    /// Of a foreground class, by its position in [`Facts::foreground`].
    Class(usize),
}

impl Facts {
    /// Those of a case in memory.
    pub fn of(case: &imaging::Prepared) -> Self {
        Self {
            channels: case.channels,
            shape: case.shape,
            spacing: case.spacing,
            outside: case.outside,
            annotated: case.annotated.len(),
            foreground: case.foreground.iter().map(Vec::len).collect(),
            smallest: case.smallest,
        }
    }

    /// How many points a list has.
    pub fn points(&self, of: Points) -> usize {
        match of {
            Points::Annotated => self.annotated,
            Points::Class(class) => self.foreground.get(class).copied().unwrap_or(0),
        }
    }

    /// Where the points of a list begin where all of them stand in a row: annotated ones, then class by class.
    pub(super) fn first(&self, of: Points) -> usize {
        match of {
            Points::Annotated => 0,
            Points::Class(class) => {
                self.annotated + self.foreground.iter().take(class).sum::<usize>()
            }
        }
    }

    /// Points of all lists.
    pub(super) fn all_points(&self) -> usize {
        self.annotated + self.foreground.iter().sum::<usize>()
    }

    /// Voxels.
    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A box of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The voxels of the case that it holds.
    pub bounds: VoxelBox,
    /// C, D, H, W.
    pub image: Vec<f32>,
    /// Label indices, D, H, W.
    pub label: Vec<u8>,
}

impl Piece {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        4 * self.image.len() + self.label.len()
    }
}

/// A case that patches are drawn from and made of, in memory or elsewhere.
pub trait CaseData: Send + Sync {
    /// What drawing needs.
    fn facts(&self) -> Cow<'_, Facts>;

    /// The index of the voxel (D, H, W, W fastest) that a point of a list stands for.
    ///
    /// # Errors
    ///
    /// Where the list has no such point, or it cannot be read.
    fn point(&self, of: Points, index: usize) -> Result<u32>;

    /// Reads the voxels of a box.
    ///
    /// # Errors
    ///
    /// Where the case has no labels, or its voxels cannot be read.
    fn read(&self, bounds: VoxelBox) -> Result<Piece>;
}

pub(super) fn no_point(of: Points, index: usize) -> Error {
    Error::Internal(format!("point {index} of {of:?}, which the case does not have"))
}

impl CaseData for imaging::Prepared {
    fn facts(&self) -> Cow<'_, Facts> {
        Cow::Owned(Facts::of(self))
    }

    fn point(&self, of: Points, index: usize) -> Result<u32> {
        let points = match of {
            Points::Annotated => Some(&self.annotated),
            Points::Class(class) => self.foreground.get(class),
        };
        points.and_then(|points| points.get(index)).copied().ok_or_else(|| no_point(of, index))
    }

    fn read(&self, bounds: VoxelBox) -> Result<Piece> {
        let label = self.label.as_deref();
        let label =
            label.ok_or_else(|| Error::Internal("a training case without labels".into()))?;
        let planes = self.image.chunks(self.shape.iter().product());
        let image = planes.flat_map(|plane| bounds.crop(plane, self.shape)).collect();
        Ok(Piece { bounds, image, label: bounds.crop(label, self.shape) })
    }
}
