//! What goes on where a device is lost: the same work on another device of the adapter, a few times.

use std::time::Duration;

use super::Gpu;
use crate::base::{Error, GpuFault, Result};

/// Devices that may be lost in a row, without anything gained between, before the work is given up.
const MOST: u32 = 3;
/// How long a driver gets to come back, times the devices that were lost in a row.
const PAUSE: Duration = Duration::from_millis(300);

/// Devices of an adapter, one after another, each opened because the one before was lost: three in a row at most.
#[derive(Debug, Default)]
pub struct Renewal {
    lost: u32,
}

impl Renewal {
    /// Something was reached that need not be done again.
    pub fn gained(&mut self) {
        self.lost = 0;
    }

    /// Another device after an error.
    ///
    /// # Errors
    ///
    /// The error, where it is not the loss of the device or too many were lost in a row.
    pub fn after(&mut self, gpu: &Gpu, error: Error) -> Result<Gpu> {
        let mut error = error;
        loop {
            if !error.is_lost() {
                return Err(error);
            }
            self.lost += 1;
            if self.lost > MOST {
                return Err(given_up(&error));
            }
            log::warn!("{error}; opening {} anew ({} of {MOST})", gpu.report().name, self.lost);
            std::thread::sleep(PAUSE * (self.lost - 1));
            match gpu.reopen() {
                Ok(gpu) => return Ok(gpu),
                // a driver that is being reset has no adapter, or none that gives devices
                Err(Error::Gpu { message, source, .. }) => {
                    error = Error::Gpu { fault: GpuFault::Lost, message, source };
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Does some work on a device, or on others where it is lost; gives the one that it was done on.
    ///
    /// # Errors
    ///
    /// Those of the work, and as [`Renewal::after`].
    pub fn run<T>(
        &mut self,
        gpu: &Gpu,
        mut work: impl FnMut(&Gpu) -> Result<T>,
    ) -> Result<(Gpu, T)> {
        let mut gpu = gpu.clone();
        loop {
            match work(&gpu) {
                Ok(done) => return Ok((gpu, done)),
                Err(error) => gpu = self.after(&gpu, error)?,
            }
        }
    }
}

fn given_up(error: &Error) -> Error {
    let message = match error {
        Error::Gpu { message, .. } => message.clone(),
        other => other.to_string(),
    };
    Error::gpu(
        GpuFault::Lost,
        format!(
            "{message}; {} devices were lost in a row. Look at the driver's messages (dmesg), at heat and at what else uses it, or choose another `device`",
            MOST + 1
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::testing::gpu;

    fn lost() -> Error {
        Error::gpu(GpuFault::Lost, "gone").about("a/file")
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn work_is_done_on_at_most_four_devices() {
        let gpu = gpu();
        let mut tries = 0;
        let done = Renewal::default().run(&gpu, |_| {
            tries += 1;
            if tries < 4 { Err(lost()) } else { Ok(tries) }
        });
        assert_eq!(done.unwrap().1, 4);
        let mut tries = 0;
        let mut renewal = Renewal::default();
        let failed = renewal.run(&gpu, |_| -> Result<()> {
            tries += 1;
            Err(lost())
        });
        let error = failed.unwrap_err();
        assert!(error.is_lost() && error.to_string().contains("4 devices were lost"), "{error}");
        assert_eq!(tries, 4);
        renewal.gained();
        assert!(renewal.after(&gpu, lost()).is_ok());
        // what is no loss is not tried again
        let other = Error::gpu(GpuFault::OutOfMemory, "full");
        assert_eq!(renewal.after(&gpu, other).unwrap_err().to_string(), "GPU: full");
    }
}
