//! Running the variants of one node side by side: the same inputs, the same outputs expected, times interleaved.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::Instant;

use half::f16;
use rayon::prelude::*;

use super::site::Site;
use crate::base::{Error, Result};
use crate::engine::exec::{Command, Pool, Program, Store, Timed, rounds_to_warm_up, submit, time};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Bind, DType, Dispatch, Graph, ParamSpec, Region, Storage, Value};
use crate::engine::plan::{Draft, Plan, Step};
use crate::engine::shader::KernelKey;

/// Largest difference from the default's results, of their largest value: as in the case tables.
const TOLERANCE: f32 = 1e-4;
/// The same where results are stored in f16.
const TOLERANCE_F16: f32 = 2e-3;
/// What a variant has to save of the default's time to take its place.
const MARGIN: f64 = 0.03;
/// Timed runs of a variant: at least and at most.
const RUNS: [usize; 2] = [5, 15];
/// Seconds after which the least number of runs is enough.
const ENOUGH: f64 = 0.05;
/// A variant that takes so many times the best's time in the last round before those that count, or in the first that does, is not
/// timed again.
const HOPELESS: f64 = 1.5;
/// Words of a run of a large result, and how many runs are compared.
const RUN: usize = 1 << 18;
const COMPARED: usize = 16;
/// Words of the inputs' pattern: no divisor of a usual tensor, so that channels differ.
const PATTERN: usize = (1 << 18) + 3;

/// The dispatches of a node in one variant, with the graph that they were lowered from.
pub struct Lowered<'a> {
    graph: &'a Graph,
    dispatches: Vec<Dispatch>,
}

impl<'a> Lowered<'a> {
    /// Those of the variant that a draft chooses.
    pub fn new(draft: &'a Draft, node: usize) -> Result<Self> {
        Ok(Self { graph: draft.graph(), dispatches: draft.lower(node)? })
    }

    /// Values that it binds. Working memory is numbered by each draft for itself.
    fn values(&self) -> BTreeSet<Value> {
        let binds = self.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
        let value = |(_, bind): &(&str, Bind)| match bind {
            Bind::Value { value, .. } => Some(*value),
            Bind::Region { .. } => None,
        };
        binds.filter_map(value).collect()
    }

    /// What it runs.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelKey> {
        self.dispatches.iter().map(|dispatch| &dispatch.kernel)
    }
}

struct Trial {
    position: usize,
    program: Program,
    /// Whether each command's time counts.
    counts: Vec<bool>,
    /// Values that it binds, and how they are stored.
    values: Vec<(Value, DType)>,
}

/// The seconds of a variant in each round.
struct Timing {
    position: usize,
    seconds: Vec<f64>,
}

/// The variant that a site takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Its position among the site's candidates.
    pub position: usize,
    /// Median seconds of the variant that ran without tuning.
    pub before: f64,
    /// Median seconds of this one.
    pub after: f64,
}

/// The variants of a node on scratch memory.
pub struct Bench<'a> {
    gpu: &'a Gpu,
    site: &'a Site,
    store: Store,
    /// What inputs are filled with, in f32 and in f16.
    patterns: (wgpu::Buffer, wgpu::Buffer),
    /// Outputs that another node reads, or that are kept.
    results: Vec<Value>,
    graph: &'a Graph,
    trials: Vec<Trial>,
    /// Variants that failed or whose results differed.
    pub refused: usize,
}

impl<'a> Bench<'a> {
    /// Compiles and binds all variants, in the order of the site's candidates.
    pub fn new(gpu: &'a Gpu, site: &'a Site, lowered: &[Lowered<'a>]) -> Result<Self> {
        let graph = lowered[site.choice.taken].graph;
        let plans: Vec<Plan> = lowered.iter().map(plan).collect();
        let pool = Pool::new(gpu, &plans)?;
        let store = Store::new(gpu, params(graph, lowered), true)?;
        // compiled side by side; one that fails is named when it is bound
        let keys: HashSet<_> = lowered.iter().flat_map(Lowered::kernels).collect();
        keys.into_par_iter().for_each(|key| drop(gpu.kernel(key)));
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let patterns = [DType::F32, DType::F16].map(|dtype| {
            let buffer = gpu.buffer("pattern", (PATTERN * 4) as u64, usage)?;
            gpu.upload(&buffer, 0, bytemuck::cast_slice(&pattern(dtype)));
            Ok(buffer)
        });
        let [singles, halves] = patterns;
        let patterns = (singles?, halves?);
        let results = results(graph, site.node);
        let mut bench =
            Self { gpu, site, store, patterns, results, graph, trials: Vec::new(), refused: 0 };
        for (position, (variant, plan)) in lowered.iter().zip(&plans).enumerate() {
            match Program::passing(gpu, plan, &[], &bench.store, &pool) {
                Ok(program) => {
                    let counts = counted(&site.choice.site, &variant.dispatches);
                    let dtype = |value| (value, variant.graph.info(value).dtype);
                    let values = variant.values().into_iter().map(dtype).collect();
                    bench.trials.push(Trial { position, program, counts, values });
                }
                Err(error) if error.is_lost() => return Err(error),
                Err(error) => bench.refuse(position, error.to_string()),
            }
        }
        Ok(bench)
    }

    fn refuse(&mut self, position: usize, why: String) {
        let choice = &self.site.choice;
        log::warn!("{}: {} is not used: {why}", choice.site, choice.candidates[position]);
        self.refused += 1;
    }

    /// The fastest variant with the default's results; none where the deadline came first.
    pub fn best(&mut self, deadline: Instant) -> Result<Option<Best>> {
        let taken = self.site.choice.taken;
        let Some(index) = self.trials.iter().position(|trial| trial.position == taken) else {
            return Err(Error::Internal(format!("{}: the default fails", self.site.choice.site)));
        };
        let expected = self.outputs(&self.trials[index])?;
        let mut values = self.trials.iter().flat_map(|trial| &trial.values);
        let halves = values.any(|(_, dtype)| *dtype == DType::F16);
        let tolerance = if halves { TOLERANCE_F16 } else { TOLERANCE };
        let mut good = Vec::new();
        for trial in std::mem::take(&mut self.trials) {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            if trial.position == taken {
                good.push(trial);
                continue;
            }
            match self.outputs(&trial).map(|found| difference(&found, &expected)) {
                Err(error) if error.is_lost() => return Err(error),
                Ok(error) if error <= tolerance => good.push(trial),
                Ok(error) => {
                    let why = format!("its results are off by {error:.1e} of the largest");
                    self.refuse(trial.position, why);
                }
                Err(error) => self.refuse(trial.position, error.to_string()),
            }
        }
        let timings = self.time(&good, deadline)?;
        for Timing { position, seconds } in &timings {
            let (choice, ms) = (&self.site.choice, median(seconds) * 1e3);
            log::debug!("{}: {}: {ms:.4} ms", choice.site, choice.candidates[*position]);
        }
        Ok(pick(&timings, taken))
    }

    /// Times variants by turns; those that are hopeless drop out early, without a time.
    fn time(&self, trials: &[Trial], deadline: Instant) -> Result<Vec<Timing>> {
        let (start, warm) = (Instant::now(), rounds_to_warm_up(self.gpu));
        let mut sequences: Vec<Timed<'_>> =
            trials.iter().map(|trial| trial.program.timed(&trial.counts)).collect();
        let new = |trial: &Trial| Timing { position: trial.position, seconds: Vec::new() };
        let mut timings: Vec<Timing> = trials.iter().map(new).collect();
        for round in 0..warm + RUNS[1] {
            let enough = round >= warm + RUNS[0] && start.elapsed().as_secs_f64() > ENOUGH;
            if enough || Instant::now() >= deadline {
                break;
            }
            let times = time(self.gpu, &mut sequences)?;
            if round >= warm {
                timings.iter_mut().zip(&times).for_each(|(own, time)| own.seconds.push(*time));
            }
            if round + 1 == warm.max(1) {
                let best = times.iter().copied().fold(f64::INFINITY, f64::min);
                let hopes = |(timing, time): (&Timing, &f64)| {
                    timing.position == self.site.choice.taken || *time <= HOPELESS * best
                };
                let keep: Vec<bool> = timings.iter().zip(&times).map(hopes).collect();
                sequences = kept(sequences, &keep);
                timings = kept(timings, &keep);
            }
        }
        Ok(timings)
    }

    /// Runs a trial once on fresh inputs and reads what it made.
    fn outputs(&self, trial: &Trial) -> Result<Vec<Vec<f32>>> {
        let program = &trial.program;
        let mut inputs = Vec::new();
        for (value, dtype) in trial.values.iter().filter(|(v, _)| program.value(*v).is_ok()) {
            let (buffer, words) = program.value(*value)?;
            let pattern = match dtype {
                DType::F32 => &self.patterns.0,
                DType::F16 => &self.patterns.1,
            };
            inputs.extend(fill(pattern, buffer, words));
        }
        let weights = self.store.buffer(Region::Weights)?;
        inputs.extend(fill(&self.patterns.0, weights, (weights.size() / 4) as usize));
        submit(self.gpu, "inputs of a variant", &inputs)?;
        program.run(self.gpu)?;
        self.results
            .iter()
            .map(|value| match self.graph.info(*value).storage {
                Storage::Grad(index) => {
                    let stored = self.store.get(&self.graph.params()[index].name)?;
                    let bytes = (stored.spec.packing.words() * 4) as u64;
                    let buffer = self.store.buffer(Region::Grads)?;
                    let bytes = self.gpu.download(buffer, (stored.start * 4) as u64, bytes)?;
                    Ok(bytemuck::pod_collect_to_vec(&bytes))
                }
                _ => {
                    let (buffer, words) = program.value(*value)?;
                    let mut found = Vec::new();
                    for run in compared(words) {
                        let (start, bytes) = ((run.start * 4) as u64, (run.len() * 4) as u64);
                        let bytes = self.gpu.download(buffer, start, bytes)?;
                        match self.graph.info(*value).dtype {
                            DType::F32 => {
                                found.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
                            }
                            DType::F16 => {
                                let halves: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
                                found.extend(halves.into_iter().map(single));
                            }
                        }
                    }
                    Ok(found)
                }
            })
            .collect()
    }
}

/// The words of a result that are compared: all, or of a large one runs spread over it, the first and the last words among them. To read
/// all of it, once a variant, took nearly all the time of tuning on an NVIDIA H200.
fn compared(words: usize) -> Vec<Range<usize>> {
    let (runs, length) = if words <= RUN * COMPARED { (1, words) } else { (COMPARED, RUN) };
    let start = |run: usize| run * (words - length) / (COMPARED - 1);
    (0..runs).map(|run| start(run)..start(run) + length).collect()
}

fn fill<'a>(
    pattern: &'a wgpu::Buffer,
    buffer: &'a wgpu::Buffer,
    words: usize,
) -> impl Iterator<Item = Command> + 'a {
    (0..words).step_by(PATTERN).map(move |start| Command::Copy {
        from: pattern.clone(),
        to: buffer.clone(),
        at: (start * 4) as u64,
        bytes: ((words - start).min(PATTERN) * 4) as u64,
    })
}

/// An f16 as f32.
fn single(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// Words of values in -1..1 that repeat nowhere soon, stored in f32 or f16.
fn pattern(dtype: DType) -> Vec<u32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    // sign and fraction as they come, one of five exponents below that of 1
    let half = |bits: u32| bits & 0x83ff | (10 + (bits >> 10 & 31) % 5) << 10;
    let mut word = || match dtype {
        DType::F32 => ((next() >> 8) as f32 / (1u32 << 23) as f32 - 1.0).to_bits(),
        DType::F16 => half(next() & 0xffff) | half(next() & 0xffff) << 16,
    };
    (0..PATTERN).map(|_| word()).collect()
}

/// Parameters that any of the variants binds.
fn params<'a>(graph: &'a Graph, lowered: &[Lowered<'_>]) -> impl Iterator<Item = &'a ParamSpec> {
    let indices: BTreeSet<usize> = lowered
        .iter()
        .flat_map(|variant| {
            variant.values().into_iter().filter_map(|value| {
                match variant.graph.info(value).storage {
                    Storage::Param(index) | Storage::Grad(index) => Some(index),
                    _ => None,
                }
            })
        })
        .collect();
    indices.into_iter().filter_map(|index| graph.params().get(index))
}

/// A plan of one node: every value has a slot of its own.
fn plan(variant: &Lowered<'_>) -> Plan {
    let Lowered { graph, dispatches } = variant;
    let mut slots = Vec::new();
    let mut value_to_slot = HashMap::new();
    for value in variant.values() {
        let info = graph.info(value);
        if !matches!(info.storage, Storage::Param(_) | Storage::Grad(_)) {
            value_to_slot.insert(value, slots.len());
            slots.push((info.words * 4) as u64);
        }
    }
    let steps = dispatches.iter().cloned().map(Box::new).map(Step::Run).collect();
    Plan { graph: (*graph).clone(), steps, slots, value_to_slot, again: Vec::new() }
}

/// What the node makes for others: neither working memory nor moments, whose parts differ with the variant.
fn results(graph: &Graph, node: usize) -> Vec<Value> {
    let others = graph.nodes().iter().enumerate().filter(|(index, _)| *index != node);
    let read: HashSet<Value> = others
        .flat_map(|(_, other)| &other.inputs)
        .flat_map(|input| graph.loads(*input))
        .flat_map(|load| load.sources())
        .collect();
    let outputs = &graph.nodes()[node].outputs;
    let counts = |value: &&Value| {
        let gradient = matches!(graph.info(**value).storage, Storage::Grad(_));
        gradient || read.contains(value) || graph.kept().contains(value)
    };
    outputs.iter().filter(counts).copied().collect()
}

/// The commands whose time counts: all of the node, or of a node with several sites those of this one.
fn counted(site: &str, dispatches: &[Dispatch]) -> Vec<bool> {
    let of = |dispatch: &Dispatch| dispatch.choice.as_ref().map(|c| c.site == site);
    let others = dispatches.iter().any(|dispatch| of(dispatch) == Some(false));
    dispatches.iter().map(|dispatch| !others || of(dispatch) == Some(true)).collect()
}

/// Largest difference of any value, of the largest one expected in its tensor.
fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let pairs = found.iter().zip(expected);
    pairs.map(|(found, expected)| off(found, expected)).fold(0.0, f32::max)
}

fn off(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let largest = expected.par_iter().map(|value| value.abs()).reduce(|| 0.0, f32::max);
    let scale = largest.max(1e-3);
    let pairs = found.par_iter().zip(expected);
    // a value that is no number differs
    let error = |(f, e): (&f32, &f32)| match (f - e).abs() / scale {
        error if error.is_nan() => f32::INFINITY,
        error => error,
    };
    pairs.map(error).reduce(|| 0.0, f32::max)
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}

fn kept<T>(items: Vec<T>, keep: &[bool]) -> Vec<T> {
    items.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| item).collect()
}

/// The variant with the least median, if that saves enough; none where too few runs were timed.
fn pick(timings: &[Timing], taken: usize) -> Option<Best> {
    let default = timings.iter().find(|timing| timing.position == taken)?;
    if default.seconds.len() < RUNS[0] {
        return None;
    }
    let before = median(&default.seconds);
    let medians = timings.iter().map(|timing| (timing.position, median(&timing.seconds)));
    let (position, after) = medians.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let saves = after < (1.0 - MARGIN) * before;
    Some(match saves {
        true => Best { position, before, after },
        false => Best { position: taken, before, after: before },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_the_largest_value_and_no_number_differs() {
        assert_eq!(off(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!((off(&[1.0, 3.0], &[1.0, 4.0]) - 0.25).abs() < 1e-6);
        assert_eq!(off(&[f32::NAN], &[1.0]), f32::INFINITY);
        assert_eq!(off(&[1.0], &[1.0, 2.0]), f32::INFINITY);
    }

    /// A variant that leaves the bias out, and one that does not compile: neither wins, however fast.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn wrong_and_failing_variants_are_refused() {
        use crate::engine::exec::caps;
        use crate::engine::graph::{Init, Layout, Packing, Scope};
        let gpu = crate::engine::gpu::testing::gpu();
        let caps = caps(&gpu);
        let mut graph = Graph::new();
        let param = |graph: &mut Graph, name: &str, packing: Packing| {
            let dims = vec![packing.elements()];
            let init = Init::Constant(0.0);
            graph.param(
                ParamSpec { name: name.into(), dims, scope: Scope::Shared, packing, init },
                false,
            )
        };
        let x = graph.input("x", Layout::new(1, 8, [4, 6, 8]));
        let matrix = Packing::Matrix { out: 8, ins: vec![8], taps: 1 };
        let weight = param(&mut graph, "w.weight", matrix);
        let bias = param(&mut graph, "w.bias", Packing::Channels { segments: vec![8] });
        let spec = crate::engine::ops::ConvSpec::pointwise();
        let y = crate::engine::ops::conv(&mut graph, x, weight, bias, spec).unwrap();
        graph.keep(y);
        let draft = Draft::new(&graph, &caps, &Default::default()).unwrap();
        let site = super::super::site::sites(std::slice::from_ref(&draft), caps.software)
            .unwrap()
            .remove(0);
        let right = draft.lower(site.node).unwrap();
        let mut wrong = right.clone();
        wrong[0].kernel.overrides.retain(|(name, _)| *name != "BIAS");
        wrong[0].kernel.overrides.push(("BIAS", 0));
        let mut failing = right.clone();
        failing[0].kernel.consts.push(("NOTHING", 1));
        let taken = site.choice.taken;
        let (a, b) = ((taken + 1) % 3, (taken + 2) % 3);
        let lowered = (0..3.max(taken + 1)).map(|position| {
            let dispatches = match position {
                _ if position == a => wrong.clone(),
                _ if position == b => failing.clone(),
                _ => right.clone(),
            };
            Lowered { graph: draft.graph(), dispatches }
        });
        let lowered: Vec<_> = lowered.collect();
        let mut bench = Bench::new(&gpu, &site, &lowered).unwrap();
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        let best = bench.best(deadline).unwrap().unwrap();
        assert!(best.position != a && best.position != b);
        assert!(best.after > 0.0 && best.after <= best.before);
        assert_eq!(bench.refused, 2);
    }

    #[test]
    fn halves_are_read() {
        let pairs =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (1, 2f32.powi(-24)), (0, 0.0)];
        pairs.iter().for_each(|(bits, value)| assert_eq!(single(*bits), *value));
        assert_eq!(single(0xfc00), f32::NEG_INFINITY);
        assert!(single(0x7e00).is_nan());
    }

    #[test]
    fn patterns_are_numbers_between_minus_one_and_one() {
        let singles = pattern(DType::F32);
        assert!(singles.iter().all(|bits| f32::from_bits(*bits).abs() <= 1.0));
        let halves: Vec<u16> = bytemuck::cast_slice(&pattern(DType::F16)).to_vec();
        assert!(halves.iter().all(|bits| single(*bits).abs() < 1.0));
    }

    #[test]
    fn both_ends_and_what_lies_between_are_compared() {
        for words in [1, 1000, RUN * COMPARED] {
            let runs = compared(words);
            assert_eq!((runs.len(), &runs[0]), (1, &(0..words)));
        }
        for words in [RUN * COMPARED + 1, 67_108_863] {
            let runs = compared(words);
            assert_eq!((runs.len(), runs[0].start), (COMPARED, 0));
            assert_eq!(runs[COMPARED - 1].end, words);
            let apart = |pair: &[Range<usize>]| pair[0].end <= pair[1].start;
            assert!(runs.windows(2).all(apart) && runs.iter().all(|run| run.len() == RUN));
        }
    }

    #[test]
    fn a_variant_has_to_save_something_to_win() {
        let timing = |position, seconds: f64| Timing { position, seconds: vec![seconds; RUNS[0]] };
        let of = |second| pick(&[timing(0, 1.0), timing(1, second)], 0).unwrap();
        assert_eq!(of(0.5), Best { position: 1, before: 1.0, after: 0.5 });
        assert_eq!(of(0.98), Best { position: 0, before: 1.0, after: 1.0 });
        assert_eq!(of(2.0).position, 0);
        let short = Timing { position: 0, seconds: vec![1.0] };
        assert_eq!(pick(&[short, timing(1, 0.5)], 0), None);
        assert_eq!(kept(vec![1, 2, 3], &[true, false, true]), [1, 3]);
    }

    #[test]
    fn medians_stand_outliers() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), f64::INFINITY);
    }
}
