//! Every operation, forward and backward, on the adapter against the f64 oracles: the table of `engine::check` in every way of
//! planning, and what only a test can do.

mod halves;
mod losses_stored;
mod network;
mod refused;
mod table;
