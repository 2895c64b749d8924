//! Every operation, forward and backward, on the adapter against the f64 oracles, over case tables.

mod conv;
mod elementwise;
mod halves;
mod harness;
mod loss;
mod losses_stored;
mod merge;
mod network;
mod optimizer;
mod region;
