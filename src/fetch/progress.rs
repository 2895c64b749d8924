//! How far the work is.

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Bytes come from the server.
    Downloading,
    /// The checksum of what came is taken.
    Checking,
    /// Files are taken out of the archive.
    Unpacking,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all, where they are known.
    pub total: Option<u64>,
}

/// Is told how far it is; an error ends the work, and what was downloaded stays for the next time.
pub type Watch<'a> = dyn FnMut(Progress) -> crate::base::Result<()> + 'a;
