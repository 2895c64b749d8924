//! How values between voxels are found along each axis, and where the voxels of another grid lie. Voxel centres map as
//! (i + ½) · old / new − ½.

/// How values between the voxels of an axis are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// An interpolating cubic B-spline; beyond the edge the volume is mirrored.
    Cubic,
    /// On the line between two neighbours; beyond the edge the last value goes on.
    Linear,
    /// The nearest voxel's.
    Nearest,
}

/// How images get another spacing. A spacing is anisotropic where its coarsest edge is more than three times its finest;
/// that of the image decides, and where it is isotropic the wanted one, as nnU-Net has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resampling {
    /// By cubics along all axes, whatever the spacing.
    #[default]
    Cubic,
    /// By cubics; of an anisotropic spacing the coarsest axis by the nearest slice, as nnU-Net does: between slices that far
    /// apart, a cubic would make up tissue.
    NearestAcross,
    /// By cubics; of an anisotropic spacing the coarsest axis linearly.
    LinearAcross,
}

/// How many times the finest edge the coarsest one may have in a spacing that counts as isotropic.
const ANISOTROPIC: f64 = 3.0;

impl Resampling {
    /// What each axis D, H, W of an image is resampled by, from one spacing (mm) to another.
    pub fn axes(self, from: [f64; 3], to: [f64; 3]) -> [Interpolation; 3] {
        let mut axes = [Interpolation::Cubic; 3];
        let across = match self {
            Self::Cubic => return axes,
            Self::NearestAcross => Interpolation::Nearest,
            Self::LinearAcross => Interpolation::Linear,
        };
        let anisotropic = [from, to].into_iter().find(|spacing| is_anisotropic(*spacing));
        if let Some(axis) = anisotropic.and_then(coarsest) {
            axes[axis] = across;
        }
        axes
    }

    /// What each axis D, H, W of scores is resampled by on the way back to the image's own spacing: linearly, where the image
    /// took the nearest slice by the nearest one.
    pub fn back(axes: [Interpolation; 3]) -> [Interpolation; 3] {
        axes.map(|axis| match axis {
            Interpolation::Cubic | Interpolation::Linear => Interpolation::Linear,
            Interpolation::Nearest => Interpolation::Nearest,
        })
    }
}

fn extreme(spacing: [f64; 3], pick: fn(f64, f64) -> f64) -> f64 {
    pick(spacing[0], pick(spacing[1], spacing[2]))
}

fn is_anisotropic(spacing: [f64; 3]) -> bool {
    extreme(spacing, f64::max) / extreme(spacing, f64::min) > ANISOTROPIC
}

/// The coarsest axis; none where two are, which is no stack of slices.
fn coarsest(spacing: [f64; 3]) -> Option<usize> {
    let most = extreme(spacing, f64::max);
    let mut axes = (0..3).filter(|axis| spacing[*axis] == most);
    axes.next().filter(|_| axes.next().is_none())
}

/// Where the centre of a voxel of the new grid lies among the old one's.
fn position(index: usize, old: usize, new: usize) -> f64 {
    (index as f64 + 0.5) * old as f64 / new as f64 - 0.5
}

/// An index beyond the ends, mirrored at the outermost voxels.
pub(super) fn mirror(index: i64, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size as i64 - 1);
    let folded = index.rem_euclid(period);
    (if folded >= size as i64 { period - folded } else { folded }) as usize
}

/// Four old voxels, and their share in a new one.
pub(super) struct CubicTap {
    pub indices: [usize; 4],
    pub weights: [f64; 4],
}

pub(super) fn cubic_taps(old: usize, new: usize) -> Vec<CubicTap> {
    let tap = |index: usize| {
        let at = position(index, old, new);
        let base = at.floor();
        let t = at - base;
        let weights = [
            (1.0 - t).powi(3) / 6.0,
            (3.0 * t.powi(3) - 6.0 * t * t + 4.0) / 6.0,
            (-3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
            t.powi(3) / 6.0,
        ];
        CubicTap { indices: [-1, 0, 1, 2].map(|o| mirror(base as i64 + o, old)), weights }
    };
    (0..new).map(tap).collect()
}

/// Two old voxels, and the share of the second one in a new one.
pub(super) struct LinearTap {
    pub low: usize,
    pub high: usize,
    pub t: f32,
}

pub(super) fn linear_taps(old: usize, new: usize) -> Vec<LinearTap> {
    let tap = |index: usize| {
        let at = position(index, old, new).clamp(0.0, (old - 1) as f64);
        let low = at.floor() as usize;
        LinearTap { low, high: (low + 1).min(old - 1), t: (at - at.floor()) as f32 }
    };
    (0..new).map(tap).collect()
}

/// The nearest old voxel of each new one, the later of two.
pub(super) fn nearest_taps(old: usize, new: usize) -> Vec<usize> {
    let near =
        |index: usize| (position(index, old, new) + 0.5).floor().clamp(0.0, (old - 1) as f64);
    (0..new).map(|index| near(index) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::Interpolation::{Cubic, Linear, Nearest};
    use super::*;

    #[test]
    fn the_coarse_axis_of_anisotropic_spacings_is_told_apart() {
        let axes = |from, to| Resampling::NearestAcross.axes(from, to);
        assert_eq!(axes([5.0, 0.8, 0.8], [5.0, 1.0, 1.0]), [Nearest, Cubic, Cubic]);
        assert_eq!(axes([0.8, 0.8, 5.0], [1.0; 3]), [Cubic, Cubic, Nearest]);
        // the image's own spacing goes before the wanted one
        assert_eq!(axes([5.0, 1.0, 1.0], [1.0, 5.0, 1.0]), [Nearest, Cubic, Cubic]);
        assert_eq!(axes([1.0; 3], [1.0, 4.0, 1.0]), [Cubic, Nearest, Cubic]);
        // three times is not yet more than three times
        assert_eq!(axes([3.0, 1.0, 1.0], [3.0, 1.0, 1.0]), [Cubic; 3]);
        assert_eq!(axes([3.1, 1.0, 1.0], [1.0; 3]), [Nearest, Cubic, Cubic]);
        // two coarse axes are no stack of slices
        assert_eq!(axes([5.0, 5.0, 1.0], [1.0; 3]), [Cubic; 3]);
        assert_eq!(Resampling::Cubic.axes([9.0, 1.0, 1.0], [1.0; 3]), [Cubic; 3]);
        let linear = Resampling::LinearAcross.axes([9.0, 1.0, 1.0], [1.0; 3]);
        assert_eq!(linear, [Linear, Cubic, Cubic]);
        assert_eq!(Resampling::back([Nearest, Cubic, Cubic]), [Nearest, Linear, Linear]);
        assert_eq!(Resampling::back(linear), [Linear; 3]);
    }

    /// What `map_coordinates(order=0, mode="nearest")` takes at `old / new * (i + 0.5) - 0.5`, by hand.
    #[test]
    fn the_nearest_slices_are_those_of_nnunet() {
        // centres -0.25, 0.25, 0.75, 1.25, ...
        assert_eq!(nearest_taps(3, 6), [0, 0, 1, 1, 2, 2]);
        // 0.5, 2.5, 4.5: a half goes up
        assert_eq!(nearest_taps(6, 3), [1, 3, 5]);
        // -0.2, 0.4, 1, 1.6, 2.2
        assert_eq!(nearest_taps(3, 5), [0, 0, 1, 2, 2]);
        // 1/3, 2, 11/3
        assert_eq!(nearest_taps(5, 3), [0, 2, 4]);
        assert_eq!(nearest_taps(1, 3), [0, 0, 0]);
        assert_eq!(nearest_taps(4, 1), [2]);
    }
}
