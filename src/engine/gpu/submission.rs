//! Submitting, waiting and reading back. A device that is lost meanwhile is an error, wherever that shows first.

use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(any(test, feature = "faults"))]
use std::sync::Arc;
use std::time::Instant;

use super::Gpu;
use super::call::Call;
#[cfg(any(test, feature = "faults"))]
use super::faults::{Fault, Faults};
use crate::base::{BoxedError, Error, GpuFault, Result, locked};

impl Gpu {
    /// Writes bytes (a multiple of four) before whatever is submitted next.
    pub fn upload(&self, buffer: &wgpu::Buffer, offset: u64, data: &[u8]) {
        self.queue().write_buffer(buffer, offset, data);
    }

    /// Reads bytes (offset and size multiples of four) once all submitted work is done.
    pub fn download(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("read back", bytes, usage)?;
        let mut encoder = self
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read back") });
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
        self.submit("read back", encoder)?;
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // the receiver waits below; it is gone only if that failed already
            sender.send(result).ok();
        });
        self.wait()?;
        self.may_map()?;
        receiver.recv().map_err(unread)?.map_err(unread)?;
        let view = staging.get_mapped_range(..bytes).map_err(unread)?;
        Ok(view.to_vec())
    }

    /// Submits commands; errors name `label`.
    pub fn submit(
        &self,
        label: &str,
        encoder: wgpu::CommandEncoder,
    ) -> Result<wgpu::SubmissionIndex> {
        self.submit_finished(label, self.finish(label, encoder)?)
    }

    /// Ends the encoding, which records the commands for the driver; errors name `label`.
    pub fn finish(
        &self,
        label: &str,
        encoder: wgpu::CommandEncoder,
    ) -> Result<wgpu::CommandBuffer> {
        self.scoped(label, || encoder.finish())
    }

    /// Submits encoded commands; errors name `label`. On adapters that compute on the CPU it may do the work.
    pub fn submit_finished(
        &self,
        label: &str,
        commands: wgpu::CommandBuffer,
    ) -> Result<wgpu::SubmissionIndex> {
        self.scoped(label, || self.queue().submit([commands]))
    }

    /// Work that a submission may hold at the pace that was measured, so that no watchdog resets the GPU.
    pub fn submission_budget(&self) -> u64 {
        self.inner.pace.budget()
    }

    /// As [`Gpu::submit_finished`], of commands of so much work, by which the pace is measured.
    pub fn submit_measured(
        &self,
        label: &str,
        commands: wgpu::CommandBuffer,
        work: u64,
    ) -> Result<wgpu::SubmissionIndex> {
        let begun = Instant::now();
        let index = self.submit_finished(label, commands)?;
        let pace = self.inner.pace.clone();
        self.when_done(move || pace.done(work, begun));
        Ok(index)
    }

    /// Blocks until the queue is idle.
    pub fn wait(&self) -> Result<()> {
        self.ask(wgpu::PollType::wait_indefinitely())
    }

    /// Takes in what is done so far, without waiting.
    pub fn poll(&self) -> Result<()> {
        self.ask(wgpu::PollType::Poll)
    }

    /// Calls `told` once all that was submitted is done and the device is asked.
    pub fn when_done(&self, told: impl FnOnce() + Send + 'static) {
        self.queue().on_submitted_work_done(told);
    }

    /// Blocks until one submission, and those before it, are done.
    pub fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        self.ask(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })
    }

    /// Asks the device how far it is. wgpu panics where it finds it lost.
    fn ask(&self, until: wgpu::PollType) -> Result<()> {
        self.seam(Call::Other)?;
        let polled = caught(|| self.device().poll(until));
        self.inner.pace.settle(Instant::now());
        match polled {
            Ok(Ok(_)) => self.check(),
            Ok(Err(error)) => self.check().and(Err(unfinished(error))),
            Err(panicked) => {
                self.lose(panicked);
                self.check()
            }
        }
    }

    /// To be asked before memory is read that was mapped.
    pub(in crate::engine) fn may_map(&self) -> Result<()> {
        self.seam(Call::Other)
    }

    /// Notes that the device is lost, unless it is known what went wrong first.
    fn lose(&self, why: impl std::fmt::Display) {
        let message = format!("the device was lost: {why}");
        locked(&self.inner.failure).get_or_insert((GpuFault::Lost, message));
    }

    /// The first failure that no error scope caught, if there was one.
    pub(super) fn check(&self) -> Result<()> {
        match locked(&self.inner.failure).as_ref() {
            Some((fault, message)) => Err(Error::gpu(*fault, message.clone())),
            None => Ok(()),
        }
    }

    /// The same device, whose calls fail as planned.
    #[cfg(any(test, feature = "faults"))]
    pub fn failing(mut self, faults: Arc<Faults>) -> Self {
        // nobody else has the device yet
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.faults = faults;
        }
        self
    }

    /// The calls at the seam.
    #[cfg(test)]
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Fails where a test wants this call to fail.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn seam(&self, call: Call) -> Result<()> {
        match self.inner.faults.next(call) {
            None => Ok(()),
            Some(Fault::Memory) => Err(Error::gpu(GpuFault::OutOfMemory, "an injected fault")),
            Some(Fault::Loss) => {
                self.lose("an injected fault");
                self.device().destroy();
                self.check()
            }
        }
    }

    #[cfg(not(any(test, feature = "faults")))]
    #[inline]
    pub(super) fn seam(&self, _: Call) -> Result<()> {
        Ok(())
    }
}

/// What `ask` gives, or what it panicked with.
fn caught<T>(ask: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(ask)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or(payload.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

/// A failure to read a buffer back.
pub(in crate::engine) fn unread(source: impl Into<BoxedError>) -> Error {
    Error::gpu_from(GpuFault::Lost, "read back", source)
}

/// A failure to wait for what was submitted.
fn unfinished(source: impl Into<BoxedError>) -> Error {
    Error::gpu_from(GpuFault::Lost, "wait", source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::testing::gpu;

    /// wgpu panics where a wait finds the device lost.
    #[test]
    fn what_is_panicked_with_becomes_words() {
        assert_eq!(caught(|| 3), Ok(3));
        let lost = "Error in Device::poll:\n  Parent device is lost\n".to_string();
        let said = caught(move || std::panic::panic_any(lost));
        assert_eq!(said, Err::<(), _>("Error in Device::poll: Parent device is lost".to_string()));
        assert_eq!(caught(|| std::panic::panic_any("short")), Err::<(), _>("short".to_string()));
    }

    /// A device that is gone is no good for anything, and each call says that it was lost.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn a_lost_device_is_an_error_at_every_call() {
        let gpu = gpu();
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("words", 64, usage).unwrap();
        gpu.lose("a test");
        gpu.device().destroy();
        let errors = [
            gpu.wait().unwrap_err(),
            gpu.poll().unwrap_err(),
            gpu.buffer("more", 64, usage).unwrap_err(),
            gpu.download(&buffer, 0, 64).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_lost() && error.to_string().contains("lost: a test"), "{error}");
        }
        let other = gpu.reopen().unwrap();
        assert_eq!(other.report(), gpu.report());
        let buffer = other.buffer("words", 64, usage).unwrap();
        assert_eq!(other.download(&buffer, 0, 64).unwrap(), [0; 64]);
    }
}
