//! The one error type. Messages name the file or setting, what was found, what was expected, and the remedy.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of another crate.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong, grouped by where the remedy lies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that does not hold what it should.
    #[error("{}: found {found}; expected {expected}. {remedy}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A setting with an unusable value. Settings have the names of the fields that hold them; `expected` and `remedy` name
    /// others in backticks.
    #[error("{name}: found {found}; expected {expected}. {remedy}")]
    Setting {
        /// The setting, or several.
        name: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
    /// Shapes that do not fit each other.
    #[error("{op}: {message}")]
    Shape {
        /// What would compute with them.
        op: String,
        /// Which shapes do not fit.
        message: String,
    },
    /// A shader that cannot be specialised, parsed or validated.
    #[error("shader {file}: {message}")]
    Shader {
        /// Its file, without folders.
        file: String,
        /// What is wrong, as the compiler has it.
        message: String,
    },
    /// The adapter, the device or a submission failed.
    #[error("GPU: {message}")]
    Gpu {
        /// The kind of failure.
        fault: GpuFault,
        /// What failed, and why.
        message: String,
        /// What told of it, where something did.
        source: Option<BoxedError>,
    },
    /// Something that went wrong with a file, said by what does not know its name.
    #[error("{}: {source}", path.display())]
    About {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Box<Error>,
    },
    /// Somebody asked the work to stop, and it did in good order.
    #[error("stopped before the end")]
    Stopped,
    /// A broken invariant of this crate.
    #[error("internal error: {0} (please report this)")]
    Internal(String),
}

/// What failed on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuFault {
    /// There is no adapter, or none that computes.
    NoAdapter,
    /// The device went away: reset, removed, or its driver failed.
    Lost,
    /// Memory does not hold what was asked for.
    OutOfMemory,
    /// The driver or wgpu refuses a call.
    Validation,
    /// Results that differ from what they must be.
    Wrong,
}

impl Error {
    /// A failure of the adapter or the device that no other error tells of.
    pub fn gpu(fault: GpuFault, message: impl Into<String>) -> Self {
        Self::Gpu { fault, message: message.into(), source: None }
    }

    /// A failure of the adapter or the device, with what told of it.
    pub fn gpu_from(fault: GpuFault, what: impl Display, source: impl Into<BoxedError>) -> Self {
        let source = source.into();
        Self::Gpu { fault, message: format!("{what}: {source}"), source: Some(source) }
    }

    /// Whether the device was lost: the same work may succeed on another one.
    pub fn is_lost(&self) -> bool {
        self.is_fault(GpuFault::Lost)
    }

    /// Whether a GPU failed in this way.
    pub fn is_fault(&self, kind: GpuFault) -> bool {
        match self {
            Self::Gpu { fault, .. } => *fault == kind,
            Self::About { source, .. } => source.is_fault(kind),
            _ => false,
        }
    }

    /// The same with a remedy, where the GPU has not enough memory; settings stand in backticks.
    pub fn with_memory_remedy(self, remedy: impl FnOnce() -> String) -> Self {
        match self {
            Self::Gpu { fault: GpuFault::OutOfMemory, message, source } => {
                let message = format!("{message}. {}", remedy());
                Self::Gpu { fault: GpuFault::OutOfMemory, message, source }
            }
            Self::About { path, source } => {
                Self::About { path, source: Box::new(source.with_memory_remedy(remedy)) }
            }
            other => other,
        }
    }

    /// A file that holds something else than expected.
    pub fn file(
        path: impl AsRef<Path>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }

    /// An I/O failure with its path.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A setting with an unusable value; several are separated by commas.
    pub fn setting(
        name: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Setting {
            name: name.into(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }

    /// The same with the file that it is about, unless it names one or is about none.
    pub fn about(self, path: impl AsRef<Path>) -> Self {
        match self {
            Self::File { .. } | Self::Io { .. } | Self::About { .. } | Self::Stopped => self,
            other => Self::About { path: path.as_ref().to_path_buf(), source: Box::new(other) },
        }
    }

    /// Shapes that do not fit.
    pub fn shape(op: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Shape { op: op.into(), message: message.into() }
    }

    /// A shader that does not compile.
    pub fn shader(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Shader { file: file.into(), message: message.into() }
    }
}
