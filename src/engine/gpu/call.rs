//! Calls to the driver, as those see them who let some of them fail.

/// What may fail at the seam to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// A buffer is made.
    Allocation,
    /// Anything else.
    Other,
}
