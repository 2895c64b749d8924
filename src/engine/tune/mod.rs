//! Autotuning: which variant of each kernel is fastest at the shapes of a network on this adapter.
//!
//! The tuner plans the user's graphs, collects the sites of their dispatches (see [`Tuning`]), and within a budget
//! of seconds runs each variant on the real shapes, the costliest site first. A variant whose results differ from the
//! default's never wins. What was found is kept by adapter, driver, version and shaders in the user's cache folder.

mod cache;
mod record;
mod site;
mod trial;

use std::collections::{BTreeMap, HashSet};
use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use rayon::prelude::*;

pub use cache::Identity;
pub use record::Record;

use crate::base::{Result, Stop};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::plan::{Draft, Workload};
use crate::engine::shader::{KernelKey, Tuning};
use site::{Site, sites};
use trial::{Bench, Best, Lowered};

/// How the variants of kernels are chosen.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Use the shipped choices alone: the same on every device of a class.
    Off,
    /// Use what earlier tuning on this device found, else the shipped choices; times nothing.
    #[default]
    Cached,
    /// As cached, and time the costliest new shapes: 10 s on a GPU, 20 s on a software device.
    Quick,
    /// Time every shape anew: up to 2 min on a GPU, 10 min on a software device.
    Full,
}

impl Mode {
    /// Seconds that timing may take, compilation included.
    fn budget(self, gpu: &Gpu) -> Duration {
        let seconds = match (self, gpu.is_software()) {
            (Self::Off | Self::Cached, _) => 0,
            (Self::Quick, false) => 10,
            (Self::Quick, true) => 20,
            (Self::Full, false) => 120,
            (Self::Full, true) => 600,
        };
        Duration::from_secs(seconds)
    }
}

/// What tuning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Report {
    /// Seconds that timing took.
    pub seconds: f64,
    /// Sites with more than one variant.
    pub sites: usize,
    /// Sites that were timed now.
    pub timed: usize,
    /// Timed sites where another variant than the shipped one won.
    pub changed: usize,
    /// Variants that failed or whose results differed.
    pub refused: usize,
    /// Milliseconds that the timed sites take in one run of all graphs with the shipped variants.
    pub shipped_ms: f64,
    /// The same with the variants that won.
    pub tuned_ms: f64,
}

/// For the user, in a line.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, sites, timed, changed, refused, shipped_ms, tuned_ms } = self;
        let gained = 100.0 * (shipped_ms - tuned_ms) / shipped_ms.max(f64::MIN_POSITIVE);
        write!(
            f,
            "tuning: {timed} of {sites} shapes timed in {seconds:.1} s, the costliest first; {changed} take another variant, {refused} variants refused; \
             they take {tuned_ms:.2} ms instead of {shipped_ms:.2} ({gained:.0} % less)"
        )
    }
}

/// The graphs as they are planned for an adapter, before anything has its place in memory.
fn drafts(workloads: &[Workload], caps: &Caps) -> Result<Vec<Draft>> {
    workloads.iter().map(|w| Draft::new(&w.graph, caps, &w.options)).collect()
}

/// The device with the variants that `mode` chooses for the workloads.
pub fn tuned(gpu: &Gpu, mode: Mode, workloads: &[Workload], stop: &Stop) -> Result<(Gpu, Report)> {
    let shipped = gpu.shipped()?;
    if mode == Mode::Off {
        return Ok((gpu.tuned(shipped), Report::default()));
    }
    let known = cache::read(gpu);
    if mode == Mode::Cached {
        return Ok((gpu.tuned(shipped.with(known)), Report::default()));
    }
    let mut tuner = Tuner::new(gpu, &shipped, mode, workloads)?;
    let skip = if mode == Mode::Full { BTreeMap::new() } else { known.clone() };
    let found = tuner.run(&skip, stop)?;
    cache::add(gpu, &found);
    // what was found until then is kept
    stop.check()?;
    let all: BTreeMap<_, _> = known.into_iter().chain(found).collect();
    Ok((gpu.tuned(shipped.with(all)), tuner.report))
}

/// Sites whose kernels are compiled while those of as many before are timed.
const AHEAD: usize = 8;

/// Compiles on all cores, so that they are there when they are timed; one that fails is named then.
fn compile(gpu: &Gpu, keys: HashSet<KernelKey>, deadline: Instant) {
    keys.into_par_iter().filter(|_| Instant::now() < deadline).for_each(|key| {
        drop(gpu.kernel(&key));
    });
}

struct Tuner<'a> {
    gpu: Gpu,
    workloads: &'a [Workload],
    /// The drafts with the shipped variants, and by position those with other ones, made when they are needed.
    shipped: Vec<Draft>,
    others: Vec<Option<Vec<Draft>>>,
    sites: Vec<Site>,
    deadline: Instant,
    start: Instant,
    /// What the last site took.
    last: Duration,
    report: Report,
}

impl<'a> Tuner<'a> {
    fn new(gpu: &Gpu, shipped: &Tuning, mode: Mode, workloads: &'a [Workload]) -> Result<Self> {
        let start = Instant::now();
        let gpu = gpu.tuned(shipped.clone());
        let shipped = drafts(workloads, &caps(&gpu))?;
        let sites = sites(&shipped, gpu.is_software())?;
        let most = sites.iter().map(|site| site.choice.candidates.len()).max().unwrap_or(0);
        let report = Report { sites: sites.len(), ..Report::default() };
        let deadline = start + mode.budget(&gpu);
        let others = (0..most).map(|_| None).collect();
        Ok(Self {
            gpu,
            workloads,
            shipped,
            others,
            sites,
            deadline,
            start,
            last: Duration::ZERO,
            report,
        })
    }

    /// The variant of every site that could be timed, the shipped one where it holds.
    fn run(
        &mut self,
        skip: &BTreeMap<String, String>,
        stop: &Stop,
    ) -> Result<BTreeMap<String, String>> {
        let wanted = |site: &&Site| !skip.contains_key(&site.choice.site);
        let sites: Vec<Site> = self.sites.iter().filter(wanted).cloned().collect();
        let ahead = if self.gpu.is_software() { 1 } else { AHEAD };
        let mut groups = sites.chunks(ahead).peekable();
        if let (Some(first), true) = (groups.peek(), ahead > 1) {
            let keys = self.kernels(first)?;
            compile(&self.gpu, keys, self.deadline);
        }
        let mut found = BTreeMap::new();
        let mut goes_on = true;
        while let Some(group) = groups.next().filter(|_| goes_on) {
            let next = if ahead > 1 { groups.peek().copied() } else { None };
            let keys = self.kernels(next.unwrap_or_default())?;
            let (gpu, deadline) = (self.gpu.clone(), self.deadline);
            goes_on = std::thread::scope(|scope| {
                scope.spawn(move || compile(&gpu, keys, deadline));
                self.time_all(group, &mut found, stop)
            })?;
        }
        self.gpu.keep_pipelines();
        self.report.seconds = self.start.elapsed().as_secs_f64();
        // whoever asked is told of more than that
        if self.report.timed == 0 {
            log::info!("{}", self.report);
        }
        Ok(found)
    }

    fn note(&mut self, site: &Site, best: &Best) {
        let all = |seconds: f64| seconds * 1e3 * site.nodes as f64;
        self.report.timed += 1;
        self.report.shipped_ms += all(best.before);
        self.report.tuned_ms += all(best.after);
        let Site { choice, nodes, .. } = site;
        if best.position != choice.taken {
            self.report.changed += 1;
            log::info!(
                "tuning: {}, {nodes} times: {} instead of {}, {:.3} ms instead of {:.3}",
                choice.site,
                choice.candidates[best.position],
                choice.variant(),
                all(best.after),
                all(best.before)
            );
        }
    }

    /// Times sites until the budget ends, and tells whether it has not.
    fn time_all(
        &mut self,
        sites: &[Site],
        found: &mut BTreeMap<String, String>,
        stop: &Stop,
    ) -> Result<bool> {
        for site in sites {
            if stop.cause().is_some() {
                return Ok(false);
            }
            // the next site costs no more than the last, at most
            let begin = Instant::now();
            if begin + self.last >= self.deadline {
                return Ok(false);
            }
            let Some(best) = self.time(site)? else { return Ok(false) };
            self.note(site, &best);
            let variant = site.choice.candidates[best.position].clone();
            found.insert(site.choice.site.clone(), variant);
            self.last = begin.elapsed();
        }
        Ok(true)
    }

    /// The kernels of all variants of some sites.
    fn kernels(&mut self, sites: &[Site]) -> Result<HashSet<KernelKey>> {
        let mut keys = HashSet::new();
        for site in sites {
            self.drafts_for(site)?;
            for variant in self.lowered(site)? {
                keys.extend(variant.kernels().cloned());
            }
        }
        Ok(keys)
    }

    /// The fastest variant; none where the budget ended before all were timed.
    fn time(&mut self, site: &Site) -> Result<Option<Best>> {
        self.drafts_for(site)?;
        let lowered = self.lowered(site)?;
        let mut bench = Bench::new(&self.gpu, site, &lowered)?;
        let best = bench.best(self.deadline)?;
        let refused = bench.refused;
        self.report.refused += refused;
        Ok(best)
    }

    /// The node of a site in each variant.
    fn lowered(&self, site: &Site) -> Result<Vec<Lowered<'_>>> {
        let positions = 0..site.choice.candidates.len();
        let lowered = positions.map(|position| {
            let drafts = match &self.others[position] {
                Some(drafts) if position != site.choice.taken => drafts,
                _ => &self.shipped,
            };
            Lowered::new(&drafts[site.graph], site.node)
        });
        lowered.collect()
    }

    fn drafts_for(&mut self, site: &Site) -> Result<()> {
        let mut positions = 0..site.choice.candidates.len();
        positions.try_for_each(|position| match position == site.choice.taken {
            true => Ok(()),
            false => self.draft_for(position),
        })
    }

    fn draft_for(&mut self, position: usize) -> Result<()> {
        if self.others[position].is_none() {
            let caps = Caps { tuning: Tuning::at(position).into(), ..caps(&self.gpu) };
            self.others[position] = Some(drafts(self.workloads, &caps)?);
        }
        Ok(())
    }
}
