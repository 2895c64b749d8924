//! How long commands take: each run again and again within one submission, so that an adapter has its clocks up.

use std::time::Instant;

use super::command::{Command, dispatch, encode, encoder};
use crate::base::Result;
use crate::engine::gpu::Gpu;

const TIMED: &str = "timed commands";

/// Seconds of work that bring a GPU's clocks up, and beside which the ends of a pass do not count.
const STEADY: f64 = 2e-3;

/// Runs of a sequence at most.
const MOST: usize = 1000;

/// Sequences in one submission, so that no watchdog resets the GPU.
const TOGETHER: usize = 32;

/// Commands that are timed as one, run so many times in a row.
pub struct Timed<'a> {
    commands: Vec<&'a Command>,
    repeats: usize,
}

impl<'a> Timed<'a> {
    /// Commands that run once, until it is known how long they take.
    pub fn new(commands: impl IntoIterator<Item = &'a Command>) -> Self {
        Self { commands: commands.into_iter().collect(), repeats: 1 }
    }

    /// Has the sequence run as often as steady clocks take, where one run took so many seconds: once on an adapter that computes
    /// on the CPU.
    fn steady(&mut self, gpu: &Gpu, seconds: f64) {
        if !gpu.is_software() {
            let wanted = (STEADY / seconds.max(1e-7)).ceil() as usize;
            self.repeats = self.repeats.max(wanted.min(MOST));
        }
    }

    /// Whether the host has to time them.
    pub(super) fn has_copies(&self) -> bool {
        self.commands.iter().any(|command| matches!(command, Command::Copy { .. }))
    }
}

/// Rounds before those that count: a cold one says how often each sequence has to run, a second brings the clocks up. Adapters that
/// compute on the CPU need none.
pub fn rounds_to_warm_up(gpu: &Gpu) -> usize {
    if gpu.is_software() { 0 } else { 2 }
}

/// Runs sequences one after another and gives the seconds of one run of each: by the device's own timestamps where a GPU has them,
/// else by the wall clock. In the next round each runs as often as steady clocks take.
pub fn time(gpu: &Gpu, sequences: &mut [Timed<'_>]) -> Result<Vec<f64>> {
    let features = gpu.device().features();
    let stamps = features.contains(wgpu::Features::TIMESTAMP_QUERY) && !gpu.is_software();
    let mut seconds = Vec::new();
    if stamps && !sequences.iter().any(Timed::has_copies) {
        for together in sequences.chunks(TOGETHER) {
            seconds.extend(stamped(gpu, together)?);
        }
    } else {
        for sequence in sequences.iter() {
            seconds.push(by_wall_clock(gpu, sequence)?);
        }
    }
    for (sequence, seconds) in sequences.iter_mut().zip(&seconds) {
        sequence.steady(gpu, *seconds);
    }
    Ok(seconds)
}

/// Seconds of one run of each sequence in each of `rounds` rounds, after those to warm up.
pub fn time_rounds(gpu: &Gpu, sequences: &mut [Timed<'_>], rounds: usize) -> Result<Vec<Vec<f64>>> {
    for _ in 0..rounds_to_warm_up(gpu) {
        time(gpu, sequences)?;
    }
    let mut all = vec![Vec::with_capacity(rounds); sequences.len()];
    for _ in 0..rounds {
        let times = time(gpu, sequences)?;
        all.iter_mut().zip(times).for_each(|(own, seconds)| own.push(seconds));
    }
    Ok(all)
}

fn by_wall_clock(gpu: &Gpu, sequence: &Timed<'_>) -> Result<f64> {
    let mut encoder = encoder(gpu, TIMED);
    for _ in 0..sequence.repeats {
        for command in &sequence.commands {
            encode(&mut encoder, TIMED, std::slice::from_ref(*command), u64::MAX);
        }
    }
    let start = Instant::now();
    gpu.submit(TIMED, encoder)?;
    gpu.wait()?;
    Ok(start.elapsed().as_secs_f64() / sequence.repeats as f64)
}

/// Each sequence of dispatches in a pass of its own, with the time at its ends.
fn stamped(gpu: &Gpu, sequences: &[Timed<'_>]) -> Result<Vec<f64>> {
    let count = 2 * sequences.len() as u32;
    let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("timestamps"),
        ty: wgpu::QueryType::Timestamp,
        count,
    });
    let bytes = 8 * u64::from(count);
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let ticks = gpu.buffer("timestamps", bytes, usage)?;
    let mut encoder = encoder(gpu, TIMED);
    for (sequence, first) in sequences.iter().zip((0..count).step_by(2)) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(TIMED),
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            }),
        });
        for _ in 0..sequence.repeats {
            for command in &sequence.commands {
                if let Command::Dispatch(run) = command {
                    dispatch(&mut pass, run);
                }
            }
        }
    }
    encoder.resolve_query_set(&queries, 0..count, &ticks, 0);
    gpu.submit(TIMED, encoder)?;
    let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.download(&ticks, 0, bytes)?);
    let period = f64::from(gpu.queue().get_timestamp_period());
    let pairs = stamps.chunks_exact(2).zip(sequences);
    let seconds = |(ends, sequence): (&[u64], &Timed<'_>)| {
        let ticks = ends[1].wrapping_sub(ends[0]) as f64;
        ticks * period * 1e-9 / sequence.repeats as f64
    };
    Ok(pairs.map(seconds).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{BoundDispatch, BufferPart, Uniforms, bind};
    use super::*;
    use crate::engine::shader::KernelKey;

    /// By the device's own clock, which llvmpipe has too.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn stamps_tell_the_time_of_each_sequence() {
        let gpu = crate::engine::gpu::testing::gpu();
        if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            log::warn!("NOT RUN: {} has no timestamps", gpu.report().name);
            return;
        }
        let bytes = 1 << 24;
        let [src, out] =
            [(); 2].map(|()| gpu.buffer("vectors", bytes, wgpu::BufferUsages::STORAGE).unwrap());
        let kernel = gpu.kernel(&KernelKey::new("bench_copy.wgsl")).unwrap();
        let mut uniforms = Uniforms::new(&gpu, [kernel.clone()]).unwrap();
        uniforms.set(0, &[("count", &[(bytes / 16) as u32])]).unwrap();
        uniforms.send(&gpu);
        let named = [
            ("src", BufferPart::whole(&src)),
            ("out", BufferPart::whole(&out)),
            ("params", uniforms.part(0).unwrap()),
        ];
        let group = bind(&gpu, "copy", &kernel, &named).unwrap();
        let run = |groups| {
            let (kernel, group) = (kernel.clone(), group.clone());
            let label = "copy".to_string();
            Command::Dispatch(BoundDispatch { label, kernel, group, groups: [groups, 1], work: 0 })
        };
        let [all, few] = [4096, 1].map(run);
        let mut sequences = [Timed::new([&all, &all]), Timed::new([&few]), Timed::new([&all])];
        sequences[2].repeats = 3;
        // the first run wakes threads and touches memory
        stamped(&gpu, &sequences).unwrap();
        let seconds = stamped(&gpu, &sequences).unwrap();
        assert_eq!(seconds.len(), 3);
        assert!(seconds.iter().all(|seconds| (0.0..10.0).contains(seconds)), "{seconds:?}");
        assert!(seconds[1] < seconds[0] && seconds[1] < seconds[2], "{seconds:?}");
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn sequences_run_until_clocks_are_steady_and_times_are_of_one_run() {
        let gpu = crate::engine::gpu::testing::gpu();
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let [from, to] = [(); 2].map(|()| gpu.buffer("words", 1 << 20, usage).unwrap());
        let copy = Command::Copy { from, to, at: 0, bytes: 1 << 20 };
        let mut sequences = [Timed::new([&copy]), Timed::new([&copy, &copy])];
        let rounds = time_rounds(&gpu, &mut sequences, 3).unwrap();
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert!(rounds.iter().flatten().all(|seconds| *seconds > 0.0));
        let once = gpu.is_software();
        assert!(sequences.iter().all(|sequence| (sequence.repeats == 1) == once));
        let mut short = Timed::new([&copy]);
        short.steady(&gpu, 1e-5);
        assert_eq!(short.repeats, if once { 1 } else { 200 });
        // a later, shorter time does not take runs away, nor does a long one
        short.steady(&gpu, 1.0);
        assert_eq!(short.repeats, if once { 1 } else { 200 });
    }
}
