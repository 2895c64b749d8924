//! Optimizers: one dispatch a contiguous range of the parameter block.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Bind, BlockRun, Caps, Dispatch, Region, Value, fold};
use crate::engine::shader::KernelKey;

/// The update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Optimizer {
    /// Adam with L2 weight decay added to the gradient.
    Adam {
        /// Decay of the mean and of the mean square of gradients.
        betas: [f32; 2],
        /// Added to the root of the mean square.
        eps: f32,
        /// Share of each weight that joins its gradient.
        weight_decay: f32,
    },
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd {
        /// Share of the last direction that goes on.
        momentum: f32,
        /// Share of each weight that joins its gradient.
        weight_decay: f32,
    },
}

impl Optimizer {
    /// Adam as the published training sets it.
    pub const fn adam() -> Self {
        Self::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 5e-4 }
    }

    /// The same with another weight decay.
    #[must_use]
    pub const fn with_decay(self, weight_decay: f32) -> Self {
        match self {
            Self::Adam { betas, eps, .. } => Self::Adam { betas, eps, weight_decay },
            Self::Sgd { momentum, .. } => Self::Sgd { momentum, weight_decay },
        }
    }

    /// Whether it can be trained with.
    pub fn is_usable(&self) -> bool {
        let share = |value: &f32| (0.0..1.0).contains(value);
        match self {
            Self::Adam { betas, eps, weight_decay } => {
                betas.iter().all(share) && eps.is_finite() && *eps > 0.0 && share(weight_decay)
            }
            Self::Sgd { momentum, weight_decay } => share(momentum) && share(weight_decay),
        }
    }

    /// Parameters that change with the learning rate and the update's number, from 1.
    pub fn step_params(&self, lr: f64, number: UpdateNumber) -> Vec<(&'static str, u32)> {
        match self {
            Self::Adam { betas, .. } => {
                let terms = |t: u64| {
                    let correction = |beta: f32| 1.0 - f64::from(beta).powf(t as f64);
                    let rate = (lr / correction(betas[0])) as f32;
                    let inverse = (1.0 / correction(betas[1]).sqrt()) as f32;
                    (rate.to_bits(), inverse.to_bits())
                };
                let (rate, inverse) = terms(number.usual);
                let (rate_after_skip, inverse_after_skip) = terms(number.after_skip);
                vec![
                    ("rate", rate),
                    ("rate_after_skip", rate_after_skip),
                    ("inv_sqrt_c2", inverse),
                    ("inv_sqrt_c2_after_skip", inverse_after_skip),
                ]
            }
            Self::Sgd { .. } => vec![("rate", (lr as f32).to_bits())],
        }
    }
}

/// Which update of its parameters a step makes, from 1. Steps that are left out do not count, and of the step before this one only
/// the GPU knows whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateNumber {
    /// Where the step before counted.
    pub usual: u64,
    /// Where it was left out.
    pub after_skip: u64,
}

impl UpdateNumber {
    /// The same whatever became of the step before.
    pub fn known(number: u64) -> Self {
        Self { usual: number, after_skip: number }
    }
}

/// Updates words `start .. start+words` of the parameter block, a multiple of four; one dispatch a binding's worth.
pub fn optimizer_dispatch(
    optimizer: &Optimizer,
    start: usize,
    words: usize,
    caps: &Caps,
) -> Result<Vec<Dispatch>> {
    let mut dispatches = Vec::new();
    for BlockRun { first: done, count: now } in whole_offsets(words, caps) {
        let count = now / 4;
        let region = |region| Bind::Region { region, start: start + done, words: now };
        let file = match optimizer {
            Optimizer::Adam { .. } => "adam.wgsl",
            Optimizer::Sgd { .. } => "sgd.wgsl",
        };
        let dispatch = Dispatch::new(
            "optimizer",
            KernelKey::new(file),
            fold(count.div_ceil(WORKGROUP), caps)?,
        )
        .bind("grad", region(Region::Grads))
        .bind("weight", region(Region::Weights))
        .bind("m", region(Region::Moment1))
        .bind("state", STATE)
        .param("count", count)
        .param_f32("rate", 0.0)
        .work((now * 12) as u64, (now * 28) as u64);
        dispatches.push(match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => dispatch
                .bind("v", region(Region::Moment2))
                .param_f32("decay", *weight_decay)
                .param_f32("beta1", betas[0])
                .param_f32("beta2", betas[1])
                .param_f32("eps", *eps)
                .param_f32("inv_sqrt_c2", 1.0)
                .param_f32("rate_after_skip", 0.0)
                .param_f32("inv_sqrt_c2_after_skip", 1.0),
            Optimizer::Sgd { momentum, weight_decay } => {
                dispatch.param_f32("decay", *weight_decay).param_f32("momentum", *momentum)
            }
        });
    }
    Ok(dispatches)
}

/// Averages words `start .. start+words` of the parameter block, a multiple of four, behind their update; one dispatch a binding's
/// worth.
pub fn average_dispatch(start: usize, words: usize, caps: &Caps) -> Result<Vec<Dispatch>> {
    let dispatch = |BlockRun { first: done, count: now }| {
        let count = now / 4;
        let region = |region| Bind::Region { region, start: start + done, words: now };
        let groups = fold(count.div_ceil(WORKGROUP), caps)?;
        Ok(Dispatch::new("average", KernelKey::new("average.wgsl"), groups)
            .bind("weight", region(Region::Weights))
            .bind("average", region(Region::Average))
            .bind("state", STATE)
            .param("count", count)
            .param_f32("share", 0.0)
            .param_f32("share_after_skip", 0.0)
            .work((now * 3) as u64, (now * 12) as u64))
    };
    whole_offsets(words, caps).map(dispatch).collect()
}

/// What the weights of the `number`-th update, from 1, count in their moving average. The average is that of the last tenth of the
/// updates, about, until `decay` makes it longer: the first weights are drawn, and nobody wants them in it.
pub fn average_share(decay: f32, number: u64) -> f32 {
    (10.0 / (9.0 + number.max(1) as f64)).max(1.0 - f64::from(decay)) as f32
}

/// Parameters of [`average_dispatch`] that change with the update's number.
pub fn average_params(decay: f32, number: UpdateNumber) -> Vec<(&'static str, u32)> {
    let share = |number: u64| average_share(decay, number).to_bits();
    vec![("share", share(number.usual)), ("share_after_skip", share(number.after_skip))]
}

/// Good steps after which the loss scale doubles.
pub const GROWTH: usize = 500;
/// Vectors that a thread looks at, as in the shader.
const RUN: usize = 4;
/// The state of loss_scale.wgsl.
const STATE: Bind = Bind::Region { region: Region::Scale, start: 0, words: 8 };

/// What a step's update is made of, and what of it is looked at before.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<'a> {
    /// First word and words of gradients, in the parameter block.
    pub ranges: &'a [(usize, usize)],
    /// The loss, the first four words of its value.
    pub loss: Option<Value>,
    /// Whether the loss scale falls and grows, as it does where gradients pass through f16.
    pub scales: bool,
}

/// Looks for what is not finite in loss and gradients, decides whether the step counts and moves the loss scale on, before the
/// dispatches of [`optimizer_dispatch`].
pub fn guard_dispatches(guarded: &Guarded<'_>, caps: &Caps) -> Result<Vec<Dispatch>> {
    let look = |label: &str, values: Bind, words: usize| -> Result<Dispatch> {
        let groups = fold((words / 4).div_ceil(WORKGROUP * RUN), caps)?;
        Ok(Dispatch::new(label, KernelKey::new("finite.wgsl"), groups)
            .bind("values", values)
            .bind("state", STATE)
            .param("count", words / 4)
            .work(words as u64, (words * 4) as u64))
    };
    let mut dispatches = Vec::new();
    if let Some(value) = guarded.loss {
        dispatches.push(look("finite loss", Bind::Value { value, start: 0, words: 4 }, 4)?);
    }
    for (start, words) in guarded.ranges.iter().copied() {
        for BlockRun { first: done, count: now } in whole_offsets(words, caps) {
            let grad = Bind::Region { region: Region::Grads, start: start + done, words: now };
            dispatches.push(look("finite gradients", grad, now)?);
        }
    }
    dispatches.push(
        Dispatch::new("loss scale", KernelKey::new("loss_scale.wgsl"), [1, 1])
            .bind("state", STATE)
            .param("growth", if guarded.scales { GROWTH } else { 0 }),
    );
    Ok(dispatches)
}

/// Cuts words into runs that fit a binding each and begin where one can begin.
fn whole_offsets(words: usize, caps: &Caps) -> impl Iterator<Item = BlockRun> {
    BlockRun::cover(words, (caps.max_binding / caps.alignment * caps.alignment / 4) as usize)
}
