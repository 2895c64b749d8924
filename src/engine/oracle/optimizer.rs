//! Optimizer steps.

/// Settings of [`adam_step`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// L2 factor, added to the gradient (not decoupled).
    pub weight_decay: f64,
}

/// Settings of [`sgd_nesterov_step`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdNesterov {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the velocity.
    pub momentum: f64,
    /// L2 factor, added to the gradient.
    pub weight_decay: f64,
}

/// What the loss is multiplied by, dynamically, after Micikevicius et al. 2018.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicScale {
    /// What losses are multiplied by.
    pub scale: f64,
    /// Steps since the scale last changed.
    pub good: u32,
    /// Steps left out.
    pub skipped: u32,
}

impl DynamicScale {
    /// The gradients divided by the scale, or none where one of them overflowed: is beyond 2^62 or no number. Then the scale of the
    /// next step; with `growth` 0 it stays as it is.
    pub fn unscale(&mut self, grads: &[f64], growth: u32) -> Option<Vec<f64>> {
        let scale = self.scale;
        let largest = 2f64.powi(62);
        // what is no number is not less either
        if !grads.iter().all(|g| g.abs() < largest) {
            let less = if growth == 0 { scale } else { (scale / 2.0).max(1.0) };
            *self = Self { scale: less, good: 0, skipped: self.skipped + 1 };
            return None;
        }
        self.good += 1;
        if growth > 0 && self.good >= growth {
            (self.scale, self.good) = ((scale * 2.0).min(f64::from(1 << 24)), 0);
        }
        Some(grads.iter().map(|g| g / scale).collect())
    }
}

/// One step of Adam; `t` counts from 1. Moments `m` and `v` are updated in place, bias correction as in PyTorch.
pub fn adam_step(
    param: &mut [f64],
    grad: &[f64],
    m: &mut [f64],
    v: &mut [f64],
    t: u32,
    settings: &Adam,
) {
    let Adam { lr, betas: [b1, b2], eps, weight_decay } = *settings;
    let steps = f64::from(t);
    let (c1, c2) = (1.0 - b1.powf(steps), 1.0 - b2.powf(steps));
    for i in 0..param.len() {
        let g = grad[i] + weight_decay * param[i];
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        param[i] -= lr / c1 * m[i] / ((v[i] / c2).sqrt() + eps);
    }
}

/// One step of SGD with Nesterov momentum as in PyTorch: `velocity = momentum · velocity + g`, `param -= lr · (g + momentum · velocity)`.
pub fn sgd_nesterov_step(
    param: &mut [f64],
    grad: &[f64],
    velocity: &mut [f64],
    settings: &SgdNesterov,
) {
    let SgdNesterov { lr, momentum, weight_decay } = *settings;
    for i in 0..param.len() {
        let g = grad[i] + weight_decay * param[i];
        velocity[i] = momentum * velocity[i] + g;
        param[i] -= lr * (g + momentum * velocity[i]);
    }
}

/// The moving average of parameters after an update, which count `share` in it.
pub fn average_step(average: &mut [f64], param: &[f64], share: f64) {
    for (average, param) in average.iter_mut().zip(param) {
        *average += share * (param - *average);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_its_parameters() {
        let mut average = [0.0, 8.0];
        average_step(&mut average, &[3.0, -1.0], 1.0);
        assert_eq!(average, [3.0, -1.0]);
        average_step(&mut average, &[5.0, -1.0], 0.25);
        assert_eq!(average, [3.5, -1.0]);
    }

    #[test]
    fn adams_first_step_is_the_learning_rate() {
        let settings = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 0.0, weight_decay: 0.0 };
        let (mut p, mut m, mut v) = ([1.0, 1.0], [0.0; 2], [0.0; 2]);
        adam_step(&mut p, &[3.0, -0.01], &mut m, &mut v, 1, &settings);
        assert!((p[0] - 0.9).abs() < 1e-12 && (p[1] - 1.1).abs() < 1e-12);
        let decay = Adam { weight_decay: 0.5, ..settings };
        let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
        adam_step(&mut p, &[0.0; 2], &mut m, &mut v, 1, &decay);
        assert!((m[0] - 0.1 * 0.5 * 0.9).abs() < 1e-12 && (p[0] - 0.8).abs() < 1e-12);
    }

    #[test]
    fn adams_second_step_follows_the_formula() {
        let settings = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
        let (mut p, mut m, mut v) = ([0.0], [0.0], [0.0]);
        adam_step(&mut p, &[1.0], &mut m, &mut v, 1, &settings);
        adam_step(&mut p, &[-2.0], &mut m, &mut v, 2, &settings);
        let (first, second): (f64, f64) = (0.9 * 0.1 - 0.2, 0.999 * 0.001 + 0.004);
        let step = 0.1 * (first / 0.19) / ((second / (1.0 - 0.999f64.powi(2))).sqrt() + 1e-8);
        assert!((p[0] - (-0.1 - step)).abs() < 1e-7);
    }

    #[test]
    fn nesterov_looks_ahead() {
        let settings = SgdNesterov { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let (mut p, mut velocity) = ([0.0], [0.0]);
        sgd_nesterov_step(&mut p, &[1.0], &mut velocity, &settings);
        assert!((p[0] + 0.19).abs() < 1e-12);
        sgd_nesterov_step(&mut p, &[1.0], &mut velocity, &settings);
        assert!((velocity[0] - 1.9).abs() < 1e-12 && (p[0] + 0.19 + 0.271).abs() < 1e-12);
    }
}
