//! Probabilities and ranges of random changes to patches.

use crate::base::{Error, Result};

/// How images are read between voxels; labels are always the nearest voxel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Between the eight voxels around.
    #[default]
    Linear,
    /// Keys' cubic convolution (a = −½), which passes through the voxels.
    Cubic,
}

/// Probabilities and ranges of random changes to a patch. Shape and resolution change for a sample, the rest for each
/// channel on its own.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Augment {
    /// Of images, in rotated, scaled, deformed and resized patches and in the simulation of low resolution.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// Of turning.
    pub rotate_prob: f32,
    /// Largest angle about the D, H, W axes in radians.
    pub rotate_max: [f32; 3],
    /// Of scaling.
    pub scale_prob: f32,
    /// How many times larger what a patch shows becomes.
    pub scale_range: [f32; 2],
    /// Probability of mirroring along D, H, W.
    pub mirror: [f32; 3],
    /// Of deforming.
    #[serde(default)]
    pub elastic_prob: f32,
    /// Strength: white noise of −1 to 1, smoothed by a Gaussian, is multiplied by a number of this range (voxels).
    #[serde(default = "elastic_alpha")]
    pub elastic_alpha: [f32; 2],
    /// Standard deviation of that Gaussian in voxels.
    #[serde(default = "elastic_sigma")]
    pub elastic_sigma: [f32; 2],
    /// Of blurring by a Gaussian.
    #[serde(default)]
    pub blur_prob: f32,
    /// Its standard deviation in voxels.
    #[serde(default = "blur_sigma")]
    pub blur_sigma: [f32; 2],
    /// Of sampling down to the nearest voxels and up again.
    #[serde(default)]
    pub low_res_prob: f32,
    /// How many times coarser.
    #[serde(default = "low_res_factor")]
    pub low_res_factor: [f32; 2],
    /// Of adding a constant.
    #[serde(default)]
    pub shift_prob: f32,
    /// Largest constant, in units of the normalised image.
    #[serde(default)]
    pub shift_max: f32,
    /// Of adding Gaussian noise.
    pub noise_prob: f32,
    /// Largest standard deviation, in units of the normalised image.
    pub noise_std: f32,
    /// Of multiplying.
    pub brightness_prob: f32,
    /// The factor.
    pub brightness_range: [f32; 2],
    /// Of multiplying distances to the mean.
    pub contrast_prob: f32,
    /// The factor.
    pub contrast_range: [f32; 2],
    /// Of a gamma curve over the range of values.
    pub gamma_prob: f32,
    /// Its exponent.
    pub gamma_range: [f32; 2],
}

fn elastic_alpha() -> [f32; 2] {
    [0.0, 750.0]
}

fn elastic_sigma() -> [f32; 2] {
    [10.0, 13.0]
}

fn blur_sigma() -> [f32; 2] {
    [0.5, 1.0]
}

fn low_res_factor() -> [f32; 2] {
    [1.0, 2.0]
}

impl Default for Augment {
    fn default() -> Self {
        let angle = 0.35;
        Self {
            interpolation: Interpolation::Linear,
            rotate_prob: 0.3,
            rotate_max: [angle; 3],
            scale_prob: 0.3,
            scale_range: [0.85, 1.2],
            mirror: [0.0; 3],
            elastic_prob: 0.0,
            elastic_alpha: elastic_alpha(),
            elastic_sigma: elastic_sigma(),
            blur_prob: 0.1,
            blur_sigma: blur_sigma(),
            low_res_prob: 0.1,
            low_res_factor: low_res_factor(),
            shift_prob: 0.0,
            shift_max: 0.5,
            noise_prob: 0.1,
            noise_std: 0.1,
            brightness_prob: 0.15,
            brightness_range: [0.75, 1.25],
            contrast_prob: 0.15,
            contrast_range: [0.75, 1.25],
            gamma_prob: 0.3,
            gamma_range: [0.7, 1.5],
        }
    }
}

/// Largest standard deviation of a blur, in voxels.
const MAX_BLUR: f32 = 8.0;

impl Augment {
    /// As in the published training: deformed, turned about the depth axis, scaled, mirrored from left to right.
    pub fn u2net() -> Self {
        Self {
            interpolation: Interpolation::Cubic,
            rotate_prob: 0.3,
            rotate_max: [std::f32::consts::PI, 0.0, 0.0],
            scale_prob: 0.5,
            scale_range: [0.75, 1.25],
            mirror: [0.0, 0.0, 0.3],
            elastic_prob: 0.3,
            ..Self::none()
        }
    }

    /// No changes.
    pub fn none() -> Self {
        Self {
            rotate_prob: 0.0,
            scale_prob: 0.0,
            mirror: [0.0; 3],
            elastic_prob: 0.0,
            blur_prob: 0.0,
            low_res_prob: 0.0,
            shift_prob: 0.0,
            noise_prob: 0.0,
            brightness_prob: 0.0,
            contrast_prob: 0.0,
            gamma_prob: 0.0,
            ..Self::default()
        }
    }

    /// Refuses what is no probability and ranges that make no patch.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, found: String, expected: &str| {
            Err(Error::setting(
                format!("augment.{name}"),
                found,
                expected,
                "Correct the line in config.toml.",
            ))
        };
        for (name, prob) in [
            ("rotate_prob", self.rotate_prob),
            ("scale_prob", self.scale_prob),
            ("mirror", self.mirror[0]),
            ("mirror", self.mirror[1]),
            ("mirror", self.mirror[2]),
            ("elastic_prob", self.elastic_prob),
            ("blur_prob", self.blur_prob),
            ("low_res_prob", self.low_res_prob),
            ("shift_prob", self.shift_prob),
            ("noise_prob", self.noise_prob),
            ("brightness_prob", self.brightness_prob),
            ("contrast_prob", self.contrast_prob),
            ("gamma_prob", self.gamma_prob),
        ] {
            if !(0.0..=1.0).contains(&prob) {
                return refuse(name, prob.to_string(), "a probability, 0 to 1");
            }
        }
        for (name, [low, high], least, most) in [
            ("rotate_max", [0.0, self.rotate_max[0]], 0.0, 7.0),
            ("rotate_max", [0.0, self.rotate_max[1]], 0.0, 7.0),
            ("rotate_max", [0.0, self.rotate_max[2]], 0.0, 7.0),
            ("scale_range", self.scale_range, 0.1, 10.0),
            ("elastic_alpha", self.elastic_alpha, 0.0, 1e5),
            ("elastic_sigma", self.elastic_sigma, 2.0, 1e3),
            ("blur_sigma", self.blur_sigma, 0.1, MAX_BLUR),
            ("low_res_factor", self.low_res_factor, 1.0, 16.0),
            ("shift_max", [0.0, self.shift_max], 0.0, 1e3),
            ("noise_std", [0.0, self.noise_std], 0.0, 1e3),
            ("brightness_range", self.brightness_range, 0.01, 100.0),
            ("contrast_range", self.contrast_range, 0.01, 100.0),
            ("gamma_range", self.gamma_range, 0.01, 100.0),
        ] {
            if !(least..=most).contains(&low) || !(low..=most).contains(&high) {
                let expected = format!("a lower and an upper bound from {least} to {most}");
                return refuse(name, format!("{low} to {high}"), &expected);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_named() {
        Augment::default().check().unwrap();
        Augment::none().check().unwrap();
        for (augment, name) in [
            (Augment { gamma_prob: 1.5, ..Augment::none() }, "gamma_prob"),
            (Augment { mirror: [0.0, f32::NAN, 0.0], ..Augment::none() }, "mirror"),
            (Augment { scale_range: [0.0, 1.0], ..Augment::none() }, "scale_range"),
            (Augment { elastic_sigma: [13.0, 10.0], ..Augment::none() }, "elastic_sigma"),
            (Augment { blur_sigma: [1.0, 99.0], ..Augment::none() }, "blur_sigma"),
        ] {
            let error = augment.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn settings_of_older_runs_are_read() {
        let mut table = toml::Table::try_from(Augment::none()).unwrap();
        for new in ["interpolation", "elastic_prob", "blur_sigma", "low_res_factor"] {
            table.remove(new).unwrap();
        }
        assert_eq!(table.try_into::<Augment>().unwrap(), Augment::none());
    }
}
