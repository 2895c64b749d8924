//! Inputs that once went wrong, each as a user would run it: what is right is one clear refusal or the right result.

mod datasets;
mod folds;
mod inputs;
mod outputs;
pub mod rig;
