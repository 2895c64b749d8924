//! A compute engine for networks on volumes: it knows tensors, and nothing of images or of what they show.

pub mod activation;
pub mod check;
pub mod exec;
pub mod gpu;
pub mod graph;
pub mod ops;
pub mod oracle;
pub mod plan;
pub mod shader;
pub mod shape;
pub mod tune;
