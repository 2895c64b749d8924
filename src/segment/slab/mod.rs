//! A volume segmented slab by slab: its planes, the sums of its logits and what they become lie in GPU memory only as far as the
//! windows at work need them.

mod clock;
mod decide;
mod logits;
mod memory;
mod network;
mod plan;
mod readings;
mod resize;
mod ring;
mod sweep;
mod uncertainty;

pub use clock::{Clock, Phase};
pub use decide::{Sink, Slab, Slabs};
pub use network::Network;
pub use sweep::Sweep;
