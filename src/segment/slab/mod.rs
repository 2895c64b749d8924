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
mod sink;
mod sweep;
mod uncertainty;

pub use clock::{Clock, Phase};
pub use decide::Slabs;
pub use network::Network;
pub use sink::{Sink, Slab};
pub use sweep::Sweep;
