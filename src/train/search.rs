//! Patch, batch and pools that use the memory there is.
//!
//! A domain's patch climbs a ladder, [`Growth`], as far as memory goes. What a rung takes is not estimated: the whole training is planned on
//! paper for it, as it would run. The rungs are bisected, so that some ten plans are made for a domain. All of this is without
//! recomputation, which costs time: a smaller patch that is trained as it is is better than a larger one of which much is computed twice.
//! Recomputation serves what the user fixes, and the smallest patch, where the budget holds them in no other way.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use super::config::{RunConfig, TrainingBudget};
use super::footprint::Memory;
use super::setup::{batches, network, reserved, settings};
use crate::base::{Error, Result};
use crate::dataset::Fingerprint;
use crate::domain::{DEFAULT_BATCH, DomainPlan, Growth, Limit, PatchChoice, PlanOptions, settled};
use crate::engine::graph::Caps;

/// A domain's plan, with what its patch and batch came from.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedDomain {
    /// The plan.
    pub plan: DomainPlan,
    /// What kept its patch from being larger.
    pub limit: Limit,
}

/// What training takes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    bytes: u64,
    /// The largest buffer.
    buffer: u64,
}

/// Of shapes beyond what the adapter can bind or the engine can number.
const BEYOND: Cost = Cost { bytes: u64::MAX, buffer: u64::MAX };

/// What all domains of a run have in common.
struct Search<'a> {
    /// The settings, with a budget.
    config: &'a RunConfig,
    caps: &'a Caps,
    /// Plans made on paper.
    plans: usize,
}

/// A domain whose patch may grow.
struct Climber {
    growth: Growth,
    /// The small plan, which stands where nothing larger fits.
    small: DomainPlan,
    /// Samples a step where nothing more is known, and whether they are the user's.
    batch: usize,
    batch_fixed: bool,
    known: HashMap<(PatchChoice, usize), Cost>,
}

/// Rounds in which domains share what is too much: their buffers are shared, too, so that their sum says little.
const ROUNDS: usize = 6;

/// Gives each domain the largest patch, and where that covers its median case the largest batch, that memory allows.
pub(super) fn choose(
    config: &RunConfig,
    domains: Vec<(DomainPlan, Fingerprint)>,
    options: &PlanOptions,
    caps: &Caps,
) -> Result<Vec<PlannedDomain>> {
    let Some(room) = room(config) else {
        let small = |(plan, fingerprint): (DomainPlan, Fingerprint)| {
            let limit = unsearched(&plan, &fingerprint, options);
            PlannedDomain { plan, limit }
        };
        return Ok(domains.into_iter().map(small).collect());
    };
    let start = Instant::now();
    let mut search = Search { config, caps, plans: 0 };
    let mut climbers: Vec<_> = domains
        .iter()
        .map(|(plan, fingerprint)| Climber::new(plan, fingerprint, options))
        .collect();
    let small = |((plan, _), climber): (&(DomainPlan, Fingerprint), &Option<Climber>)| {
        let limit = settled(plan, options).filter(|_| climber.is_none()).unwrap_or(Limit::Memory);
        PlannedDomain { plan: plan.clone(), limit }
    };
    let mut chosen: Vec<PlannedDomain> = domains.iter().zip(&climbers).map(small).collect();
    let mut each = room;
    for _ in 0..ROUNDS {
        for (chosen, climber) in chosen.iter_mut().zip(&mut climbers) {
            if let Some(climber) = climber {
                *chosen = search.climb(climber, each)?;
            }
        }
        let plans: Vec<DomainPlan> = chosen.iter().map(|c| c.plan.clone()).collect();
        let together = if plans.len() > 1 { search.cost(&plans)?.bytes } else { 0 };
        if together <= room {
            break;
        }
        each = each.saturating_sub(together - room);
    }
    let (plans, seconds) = (search.plans, start.elapsed().as_secs_f64());
    log::info!("patches for {} MiB: {plans} plans made in {seconds:.1} s", room >> 20);
    Ok(chosen)
}

/// Bytes that patches may grow into; none where they stay small.
fn room(config: &RunConfig) -> Option<u64> {
    config.vram.filter(|_| config.budget != Some(TrainingBudget::Quick))
}

/// What limits a patch for which memory does not count.
fn unsearched(plan: &DomainPlan, fingerprint: &Fingerprint, options: &PlanOptions) -> Limit {
    let covers = || Growth::new(fingerprint, plan, options).covers(plan.patch);
    let rule = || match (covers(), options.max_voxels) {
        (true, _) => Limit::MedianCase,
        (false, Some(_)) => Limit::Voxels,
        (false, None) => Limit::Quick,
    };
    settled(plan, options).unwrap_or_else(rule)
}

impl Climber {
    /// None where the domain's patch is settled, and so what a step shows.
    fn new(plan: &DomainPlan, fingerprint: &Fingerprint, options: &PlanOptions) -> Option<Self> {
        settled(plan, options).is_none().then(|| Self {
            growth: Growth::new(fingerprint, plan, options),
            small: plan.clone(),
            batch: options.batch.unwrap_or(DEFAULT_BATCH).max(1),
            batch_fixed: options.batch.is_some(),
            known: HashMap::new(),
        })
    }

    fn plan(&self, choice: PatchChoice, batch: usize) -> DomainPlan {
        let PatchChoice { patch, pools } = choice;
        DomainPlan { patch, pools, batch, ..self.small.clone() }
    }
}

/// The last number of a range for which `fits` holds, which holds for all before it; none where it holds for none.
fn last(range: Range<usize>, mut fits: impl FnMut(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok((low > range.start).then(|| low - 1))
}

impl Search<'_> {
    /// What training some domains takes of the adapter, cases and patches in the making included, where nothing is computed twice.
    fn cost(&mut self, plans: &[DomainPlan]) -> Result<Cost> {
        self.plans += 1;
        let reserved = reserved(self.config, plans);
        let mut settings = settings(self.config, reserved);
        settings.footprint.vram = None;
        let network = network(self.config, plans);
        match Memory::planned(&network, &batches(plans), &settings, self.caps) {
            Ok(memory) => Ok(Cost { bytes: memory.total() + reserved, buffer: memory.largest }),
            Err(Error::Shape { .. }) => Ok(BEYOND),
            Err(other) => Err(other),
        }
    }

    /// Whether a patch fits, and what keeps it from that.
    fn fault(
        &mut self,
        climber: &mut Climber,
        choice: PatchChoice,
        batch: usize,
        room: u64,
    ) -> Result<Option<Limit>> {
        let key = (choice, batch);
        let cost = match climber.known.get(&key) {
            Some(cost) => *cost,
            None => self.cost(&[climber.plan(choice, batch)])?,
        };
        climber.known.insert(key, cost);
        Ok(if cost.buffer > self.caps.max_buffer {
            Some(Limit::Buffer)
        } else {
            (cost.bytes > room).then_some(Limit::Memory)
        })
    }

    /// The largest patch that fits, then the largest batch.
    fn climb(&mut self, climber: &mut Climber, room: u64) -> Result<PlannedDomain> {
        let batch = climber.batch;
        let ladder = climber.growth.ladder().to_vec();
        let rung = last(0..ladder.len(), |at| {
            Ok(self.fault(climber, ladder[at], batch, room)?.is_none())
        })?;
        let Some(rung) = rung else {
            let limit = if ladder.is_empty() { Limit::Voxels } else { Limit::Memory };
            return Ok(PlannedDomain { plan: climber.small.clone(), limit });
        };
        let (choice, limit) = self.fill(climber, ladder[rung], room)?;
        // memory that no patch can use serves a batch
        let most = match limit {
            Limit::MedianCase | Limit::Buffer if !climber.batch_fixed => {
                climber.growth.most_samples(choice.patch, batch)
            }
            _ => batch,
        };
        let more = batch + 1..most + 1;
        let fits = |samples| Ok(self.fault(climber, choice, samples, room)?.is_none());
        let samples = last(more, fits)?.unwrap_or(batch);
        Ok(PlannedDomain { plan: climber.plan(choice, samples), limit })
    }

    /// Steps along single axes, the least covered first, as long as one fits: between two rungs there may be much.
    fn fill(
        &mut self,
        climber: &mut Climber,
        from: PatchChoice,
        room: u64,
    ) -> Result<(PatchChoice, Limit)> {
        let mut choice = from;
        'grown: loop {
            let mut faults = Vec::new();
            for larger in climber.growth.larger(choice) {
                match self.fault(climber, larger, climber.batch, room)? {
                    None => {
                        choice = larger;
                        continue 'grown;
                    }
                    Some(fault) => faults.push(fault),
                }
            }
            let limit = match faults.first() {
                _ if climber.growth.covers(choice.patch) => Limit::MedianCase,
                None => Limit::Voxels,
                Some(_) if faults.contains(&Limit::Memory) => Limit::Memory,
                Some(_) => Limit::Buffer,
            };
            return Ok((choice, limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Dataset, Labels};

    /// A domain's small plan and what it was made from.
    fn domain(
        name: &str,
        shape: [usize; 3],
        spacing: [f64; 3],
        cases: usize,
    ) -> (DomainPlan, Fingerprint) {
        let fingerprint = Fingerprint {
            shapes: vec![shape; cases],
            spacings: vec![spacing; cases],
            foreground: [-35.0, 70.0, 33.0, 17.0],
            is_ct: true,
        };
        let dataset = Dataset {
            name: name.into(),
            channels: vec!["CT".into()],
            labels: Labels::plain(["background", "organ", "tumour"]),
            ..Dataset::default()
        };
        (DomainPlan::plan(&dataset, &fingerprint, &PlanOptions::default()).unwrap(), fingerprint)
    }

    fn spleen() -> (DomainPlan, Fingerprint) {
        domain("Spleen", [90, 512, 512], [5.0, 0.8, 0.8], 41)
    }

    fn hippocampus() -> (DomainPlan, Fingerprint) {
        domain("Hippocampus", [36, 50, 35], [1.0; 3], 200)
    }

    fn liver() -> (DomainPlan, Fingerprint) {
        domain("Liver", [450, 512, 512], [1.0, 0.8, 0.8], 131)
    }

    fn config(domains: usize, gib: u64) -> RunConfig {
        RunConfig { vram: Some(gib << 30), ..RunConfig::new(vec!["x".into(); domains]) }
    }

    /// As of a GPU with 8 GiB buffers.
    fn caps() -> Caps {
        Caps { max_buffer: 8 << 30, ..Caps::default() }
    }

    /// What a plan takes of a budget.
    fn taken(config: &RunConfig, chosen: &[PlannedDomain]) -> f64 {
        let plans: Vec<_> = chosen.iter().map(|c| c.plan.clone()).collect();
        let memory = super::super::planned_memory(config, &plans, &caps()).unwrap();
        assert_eq!(memory.recomputed, 0, "{plans:?}");
        (memory.total() + reserved(config, &plans)) as f64 / config.vram.unwrap() as f64
    }

    fn chosen(
        config: &RunConfig,
        domains: Vec<(DomainPlan, Fingerprint)>,
        options: &PlanOptions,
    ) -> Vec<PlannedDomain> {
        choose(config, domains, options, &caps()).unwrap()
    }

    fn one(
        config: &RunConfig,
        domain: (DomainPlan, Fingerprint),
        options: &PlanOptions,
    ) -> PlannedDomain {
        chosen(config, vec![domain], options).remove(0)
    }

    #[test]
    fn patches_fill_the_memory_or_cover_the_median_case() {
        let domains = [("spleen", spleen()), ("hippocampus", hippocampus()), ("liver", liver())];
        let mut table = Vec::new();
        for (name, domain) in domains {
            for gib in [4, 8, 24] {
                let config = config(1, gib);
                let found = chosen(&config, vec![domain.clone()], &PlanOptions::default());
                let share = taken(&config, &found);
                let PlannedDomain { plan, limit } = &found[0];
                let DomainPlan { patch, batch, pools, .. } = plan;
                match limit {
                    Limit::MedianCase => assert_eq!(name, "hippocampus"),
                    // a channel of the largest patches fills what every adapter binds
                    limit => assert!(
                        matches!(limit, Limit::Memory | Limit::Buffer)
                            && (0.8..=1.0).contains(&share),
                        "{name} in {gib} GiB: {plan:?}, {share}, {limit:?}"
                    ),
                }
                plan.check(std::path::Path::new("plan.json")).unwrap();
                table.push((*patch, *batch, *pools));
            }
        }
        // what the documents tell
        assert_eq!(table[1], ([40, 224, 256], 2, [3, 5, 5]));
        assert_eq!(table[3..6], [([40, 56, 40], 7, [3; 3]); 3]);
        assert_eq!(table[7], ([128; 3], 2, [5; 3]));
    }

    #[test]
    fn domains_of_one_network_share_its_memory() {
        let config = config(3, 8);
        let found =
            chosen(&config, vec![spleen(), hippocampus(), liver()], &PlanOptions::default());
        let share = taken(&config, &found);
        assert!((0.8..=1.0).contains(&share), "{share} {found:?}");
        assert_eq!(found[1].limit, Limit::MedianCase);
        // nearly what each has alone
        for (found, domain) in found.iter().zip([spleen(), hippocampus(), liver()]) {
            let alone = one(&super::tests::config(1, 8), domain, &PlanOptions::default());
            let voxels = |p: &PlannedDomain| p.plan.patch.iter().product::<usize>() as f64;
            assert!(voxels(found) >= 0.7 * voxels(&alone), "{found:?} {alone:?}");
        }
    }

    #[test]
    fn patches_stay_small_without_a_budget_or_in_a_short_run() {
        let (options, (small, _)) = (PlanOptions::default(), spleen());
        let without = RunConfig::new(vec!["x".into()]);
        let quick = RunConfig { budget: Some(TrainingBudget::Quick), ..config(1, 24) };
        for config in [&without, &quick] {
            let PlannedDomain { plan, limit } = one(config, spleen(), &options);
            assert_eq!((plan, limit), (small.clone(), Limit::Quick));
        }
        // memory that holds no larger one
        let little = RunConfig { vram: Some(200 << 20), ..without.clone() };
        let PlannedDomain { plan, limit } = one(&little, spleen(), &options);
        assert_eq!((plan, limit), (small, Limit::Memory));
        let software = Caps { software: true, ..caps() };
        assert_eq!(without.clone().on(&software).vram, None);
        assert_eq!(without.clone().on(&caps()).vram, Some(caps().memory));
        let long = RunConfig { budget: Some(TrainingBudget::Thorough), ..without };
        assert_eq!(long.on(&software).vram, Some(software.memory));
    }

    #[test]
    fn what_the_user_fixes_stays() {
        let config = config(1, 8);
        let plan = |options: PlanOptions, small: (DomainPlan, Fingerprint)| {
            let again = (small.0.patch, small.0.batch);
            let PlannedDomain { plan, limit } = one(&config, small, &options);
            (plan, limit, again)
        };
        let fixed = PlanOptions { patch: Some([32, 64, 64]), ..PlanOptions::default() };
        let (_, fingerprint) = liver();
        let small = DomainPlan { patch: [32, 64, 64], ..liver().0 };
        let (found, limit, (patch, batch)) = plan(fixed, (small, fingerprint));
        assert_eq!((found.patch, found.batch, limit), (patch, batch, Limit::Patch));
        let four = PlanOptions { batch: Some(4), ..PlanOptions::default() };
        let (found, limit, _) = plan(four.clone(), liver());
        assert_eq!((found.batch, limit), (4, Limit::Memory));
        assert!(found.patch.iter().product::<usize>() > 700_000, "{found:?}");
        let (found, limit, _) = plan(four, hippocampus());
        assert_eq!((found.batch, limit), (4, Limit::MedianCase));
        let voxels = PlanOptions { max_voxels: Some(400_000), ..PlanOptions::default() };
        let (found, limit, _) = plan(voxels, liver());
        assert!(found.patch.iter().product::<usize>() > 300_000, "{found:?}");
        assert_eq!((found.batch, limit), (2, Limit::Voxels));
        let published = PlanOptions { recipe: crate::domain::Recipe::U2net, ..Default::default() };
        let (found, limit, (patch, _)) = plan(published, liver());
        assert_eq!((found.patch, limit), (patch, Limit::Published));
    }

    #[test]
    fn no_buffer_is_larger_than_the_adapter_gives() {
        let caps = Caps { max_buffer: 256 << 20, ..caps() };
        let config = config(1, 24);
        let found = choose(&config, vec![liver()], &PlanOptions::default(), &caps).unwrap();
        assert_eq!(found[0].limit, Limit::Buffer);
        let plans = [found[0].plan.clone()];
        let memory = super::super::planned_memory(&config, &plans, &caps).unwrap();
        assert!((200 << 20..=256 << 20).contains(&memory.largest), "{memory:?}");
        // one sample's channels fill a binding, a batch has more of them
        let large = super::tests::config(1, 40);
        let found = chosen(&large, vec![liver()], &PlanOptions::default());
        assert_eq!((found[0].plan.batch, found[0].limit), (3, Limit::Buffer));
        assert!((0.8..=1.0).contains(&taken(&large, &found)), "{found:?}");
    }
}
