//! Optimizers: one dispatch a contiguous range of the parameter block.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Bind, BlockRun, Caps, Dispatch, Region, fold};
use crate::engine::shader::KernelKey;

/// The update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
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

    /// Parameters that change with the learning rate and the update's number `t`, from 1.
    pub fn step_params(&self, lr: f64, t: u64) -> Vec<(&'static str, u32)> {
        match self {
            Self::Adam { betas, .. } => {
                let correction = |beta: f32| 1.0 - f64::from(beta).powf(t as f64);
                let rate = (lr / correction(betas[0])) as f32;
                let inverse = (1.0 / correction(betas[1]).sqrt()) as f32;
                vec![("rate", rate.to_bits()), ("inv_sqrt_c2", inverse.to_bits())]
            }
            Self::Sgd { .. } => vec![("rate", (lr as f32).to_bits())],
        }
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
        .bind("state", region(Region::Grads))
        .param("count", count)
        .param_f32("scale", 1.0)
        .param_f32("rate", 0.0)
        .work((now * 12) as u64, (now * 28) as u64);
        dispatches.push(match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => dispatch
                .bind("v", region(Region::Moment2))
                .param_f32("decay", *weight_decay)
                .param_f32("beta1", betas[0])
                .param_f32("beta2", betas[1])
                .param_f32("eps", *eps)
                .param_f32("inv_sqrt_c2", 1.0),
            Optimizer::Sgd { momentum, weight_decay } => {
                dispatch.param_f32("decay", *weight_decay).param_f32("momentum", *momentum)
            }
        });
    }
    Ok(dispatches)
}

/// Good steps after which the loss scale doubles.
pub const GROWTH: usize = 500;
/// Vectors that a thread looks at, as in the shader.
const RUN: usize = 4;

/// Looks for overflow in the gradients of these ranges (first word, words) and moves the loss scale on. The updates that
/// follow are to be [`Dispatch::scaled`].
pub fn loss_scale_dispatches(ranges: &[(usize, usize)], caps: &Caps) -> Result<Vec<Dispatch>> {
    let state = Bind::Region { region: Region::Scale, start: 0, words: 8 };
    let mut dispatches = Vec::new();
    for (start, words) in ranges.iter().copied() {
        for BlockRun { first: done, count: now } in whole_offsets(words, caps) {
            let count = now / 4;
            let groups = fold(count.div_ceil(WORKGROUP * RUN), caps)?;
            let grad = Bind::Region { region: Region::Grads, start: start + done, words: now };
            dispatches.push(
                Dispatch::new("overflow", KernelKey::new("finite.wgsl"), groups)
                    .bind("grad", grad)
                    .bind("state", state)
                    .param("count", count)
                    .work(now as u64, (now * 4) as u64),
            );
        }
    }
    dispatches.push(
        Dispatch::new("loss scale", KernelKey::new("loss_scale.wgsl"), [1, 1])
            .bind("state", state)
            .param("growth", GROWTH),
    );
    Ok(dispatches)
}

/// Cuts words into runs that fit a binding each and begin where one can begin.
fn whole_offsets(words: usize, caps: &Caps) -> impl Iterator<Item = BlockRun> {
    BlockRun::cover(words, (caps.max_binding / caps.alignment * caps.alignment / 4) as usize)
}
