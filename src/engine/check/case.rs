//! What a case is.

use super::net::{Net, Truth};
use super::plannings::{Planning, plannings};
use super::slab::SlabCase;
use super::update::Update;
use crate::base::Result;
use crate::engine::graph::{Caps, DType};

/// A case that is a graph.
pub trait GraphCase: Send + Sync {
    /// Unlike any other's.
    fn name(&self) -> String;

    /// Vectors of four lanes in a sample's channel block of the largest tensor, or in all its blocks where they are bound at once.
    fn vectors(&self) -> usize;

    /// The ways in which it is planned.
    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        plannings(own, self.vectors())
    }

    /// Whether it is also run without gradients, where kernels may do more at once.
    fn inference(&self) -> bool {
        false
    }

    /// Builds the graph, backward pass included.
    fn build(&self, net: &mut Net) -> Result<()>;

    /// Inputs as tensors of this kind hold them, and what the oracle makes of them.
    fn truth(&self, dtype: DType) -> Result<Truth>;
}

/// One row of the table.
pub enum Case {
    /// A graph, forward and backward.
    Graph(Box<dyn GraphCase>),
    /// Steps of an optimizer.
    Update(Update),
    /// Kernels that stand in no graph.
    Slab(SlabCase),
}

impl Case {
    /// Unlike any other's.
    pub fn name(&self) -> String {
        match self {
            Self::Graph(case) => case.name(),
            Self::Update(case) => case.name(),
            Self::Slab(case) => case.name(),
        }
    }

    /// The ways in which it is planned.
    pub fn plannings(&self, own: &Caps) -> Vec<Planning> {
        match self {
            Self::Graph(case) => case.plannings(own),
            Self::Update(case) => case.plannings(own),
            Self::Slab(case) => case.plannings(own),
        }
    }
}
