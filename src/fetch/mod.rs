//! Files from the network: downloaded with resume, held to a checksum, unpacked where nothing can leave its folder. What was
//! fetched takes its name once it is whole.

mod digest;
mod download;
mod http;
mod known;
mod limits;
mod place;
mod progress;
mod source;
mod unpack;

pub use digest::Digest;
pub use known::{MIRROR, MIRROR_VARIABLE, TASKS, Task};
pub use limits::Limits;
pub use place::{Fetched, fetch};
pub use progress::{Progress, Stage, Watch};
pub use source::Source;
