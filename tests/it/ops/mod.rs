//! Operations on the adapter, beyond what the tests of `engine::check` hold each to.

mod halves;
mod losses_stored;
mod network;
mod refused;
