//! Runs that are asked for together: a network for each dataset, a run for each fold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::claim::{Beside, Combined, claim};
use super::folder::{
    CHECKPOINT, CONFIG, DEPTH, FOLD, Planning, RunFolder, SUMMARY, check_new, find, is_begun,
    validation_folder, write_plan,
};
use super::observer::Observer;
use super::report::write_at_end;
use super::scores::combine;
use super::single::Run;
use crate::base::files::{Claim, safe_name};
use crate::base::{Error, Result};
use crate::dataset::prepared::{KeptCases, Place, Progress, Store};
use crate::dataset::{Dataset, Exclusion, Fold};
use crate::domain::{DomainPlan, Limit, PlanOptions, PresetChoice};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::tune;
use crate::net::Mode;
use crate::train;
use crate::train::{
    Checkpoint, Length, MachineBytes, Memory, Planned, Preparing, RunConfig, datasets,
};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The settings of every run; in the independent mode each dataset has a run of its own.
    pub config: RunConfig,
    /// What is fixed of the domains' plans.
    pub options: PlanOptions,
    /// Whether every fold is trained, in place of the one that the settings name.
    pub all_folds: bool,
    /// Folder of the run, or of the folders of several.
    pub out: PathBuf,
    /// Files beside the datasets that must not be written over.
    pub reads: Vec<PathBuf>,
}

/// What a run will be.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Its folder and settings.
    pub run: RunFolder,
    /// The plan of each domain.
    pub domains: Vec<DomainPlan>,
    /// What kept the patch of each domain from being larger.
    pub limits: Vec<Limit>,
    /// What training takes of the GPU's memory.
    pub memory: Memory,
    /// Bytes that cases and patches take at most, about.
    pub case_bytes: u64,
    /// What it takes of the machine's memory and of the disk.
    pub machine: MachineBytes,
}

/// A domain whose cases are prepared.
#[derive(Debug, Clone)]
pub struct PreparedDomain {
    /// How it was planned; without an adapter its patch is a small one.
    pub plan: DomainPlan,
    /// What is kept.
    pub cases: KeptCases,
    /// Where.
    pub folder: PathBuf,
}

/// Runs that belong together, one or more, to be begun or to be gone on with.
pub struct Runs {
    /// Its folder, or the one above those of several.
    out: PathBuf,
    runs: Vec<RunFolder>,
    /// What is fixed of the plans of new runs; none where runs go on.
    new: Option<PlanOptions>,
    reads: Vec<PathBuf>,
    claim: Option<Claim>,
    /// Where prepared cases are kept, once it is open.
    store: Option<OpenStore>,
}

/// Prepared cases, as the settings of runs say where and how many bytes of them.
struct OpenStore {
    place: Place,
    size: Option<u64>,
    store: Arc<Store>,
}

impl Runs {
    /// New runs: one, or a network for each dataset in the independent mode, and for each fold where all are asked for. Nothing
    /// is written yet.
    ///
    /// # Errors
    ///
    /// Where a dataset cannot be read, the folds that are asked for do not exist, or two runs would share a folder.
    pub fn new(request: RunRequest) -> Result<Self> {
        let RunRequest { config, options, all_folds, out, reads } = request;
        let runs = networks(&config, &options.preset, &out)?.into_iter().map(|run| {
            let config = train::settled(run.config, &options.preset)?;
            Ok(RunFolder { config, ..run })
        });
        let mut runs = runs.collect::<Result<Vec<_>>>()?;
        if all_folds {
            let folds = runs.iter().map(|run| folds_of(run, &options.preset));
            runs = folds.collect::<Result<Vec<_>>>()?.concat();
        }
        Ok(Self { out, runs, new: Some(options), reads, claim: None, store: None })
    }

    /// The runs in a folder: its own, or those of folds and independent networks below it. What they write is claimed.
    ///
    /// # Errors
    ///
    /// Where the folder holds no run, or something that a run would write is something that it reads.
    pub fn open(out: &Path) -> Result<Self> {
        let mut folders = Vec::new();
        if out.is_dir() {
            find(out, DEPTH, &mut folders)?;
        }
        folders.sort();
        if folders.is_empty() {
            return Err(Error::file(
                out,
                "no config.toml",
                "a run to continue",
                "Leave `continue` out to start one.",
            ));
        }
        Planning::check(out)?;
        let runs = folders.iter().map(|folder| RunFolder::read(folder));
        let runs = runs.collect::<Result<Vec<_>>>()?;
        let (out, reads) = (out.to_path_buf(), Vec::new());
        let mut runs = Self { out, runs, new: None, reads, claim: None, store: None };
        runs.claim()?;
        Ok(runs)
    }

    /// The runs.
    pub fn list(&self) -> &[RunFolder] {
        &self.runs
    }

    /// Claims what the runs will write.
    fn claim(&mut self) -> Result<()> {
        if self.claim.is_none() {
            if self.new.is_some() {
                self.runs.iter().try_for_each(|run| check_new(&run.folder))?;
            }
            let preset = self.new.as_ref().map_or(&PresetChoice::None, |options| &options.preset);
            let writes = combined(&self.runs, preset)?;
            let owns = folds(&self.runs).into_keys().map(Path::to_path_buf).collect();
            let beside = Beside { reads: self.reads.clone(), writes, owns };
            self.claim = Some(claim(&self.runs, preset, &beside)?);
        }
        Ok(())
    }

    /// Lets the runs that are not begun choose the variants of kernels in another way; gives whether there are any.
    ///
    /// # Errors
    ///
    /// Where their settings cannot be written.
    pub fn retune(&mut self, tune: tune::Mode) -> Result<bool> {
        let mut any = false;
        for run in self.runs.iter_mut().filter(|run| !is_begun(&run.folder)) {
            run.config.tune = tune;
            if self.new.is_none() {
                run.config.write(&run.folder.join(CONFIG))?;
            }
            any = true;
        }
        Ok(any)
    }

    /// Makes the runs so long in all; `config.toml` of each then says so.
    ///
    /// # Errors
    ///
    /// Where a run is that long already, its checkpoint cannot be read, or its settings cannot be written.
    pub fn extend(&mut self, length: Length) -> Result<()> {
        for run in &self.runs {
            check_longer(&run.folder, length)?;
        }
        for run in &mut self.runs {
            run.config = run.config.clone().of_length(length)?;
            if self.new.is_none() {
                run.config.write(&run.folder.join(CONFIG))?;
            }
        }
        Ok(())
    }

    /// Keeps prepared cases elsewhere, or another amount of them, than the settings of the runs say, which stay as they are.
    pub fn keep_prepared(&mut self, place: Option<Place>, size: Option<u64>) {
        for run in &mut self.runs {
            run.config.cache = place.clone().unwrap_or(run.config.cache.clone());
            run.config.cache_size = size.or(run.config.cache_size);
        }
    }

    /// Saves more or less often than the settings of the runs say, which stay as they are: after so many steps, or minutes.
    pub fn save_every(&mut self, steps: Option<u64>, minutes: Option<f64>) {
        for run in &mut self.runs {
            run.config.checkpoint_every = steps.unwrap_or(run.config.checkpoint_every);
            run.config.checkpoint_minutes = minutes.or(run.config.checkpoint_minutes);
        }
    }

    /// The prepared cases that a run uses; runs that keep them in one place share them.
    fn store(&mut self, config: &RunConfig) -> Result<Arc<Store>> {
        let (place, size) = (&config.cache, config.cache_size);
        let same = |open: &&OpenStore| open.place == *place && open.size == size;
        if let Some(open) = self.store.as_ref().filter(same) {
            return Ok(open.store.clone());
        }
        let store = config.store()?;
        self.store = Some(OpenStore { place: place.clone(), size, store: store.clone() });
        Ok(store)
    }

    /// Plans new runs for an adapter; writes nothing but what is known of the cases then, which spares reading them again.
    ///
    /// # Errors
    ///
    /// Where the data or the settings cannot be trained with, or the budget of memory is too small.
    pub fn plan(&mut self, caps: &Caps, observer: &mut dyn Observer) -> Result<Vec<RunPlan>> {
        let mut plans = Vec::new();
        for run in self.runs.clone() {
            let store = self.store(&run.config)?;
            let options = self.options()?;
            let stop = observer.stop();
            let tell = &mut |progress: &Progress| observer.preparing(progress);
            let mut preparing = Preparing { store: &store, tell, ahead: false, stop };
            let config = run.config.on(caps);
            let planned = train::plan(&config, options, caps, &mut preparing)?.into_iter();
            let (domains, limits): (Vec<_>, Vec<_>) = planned.map(|d| (d.plan, d.limit)).unzip();
            let memory = train::planned_memory(&config, &domains, caps)?;
            let case_bytes = train::reserved(&config, &domains);
            let machine = MachineBytes::of(
                &Planned { config: &config, domains: &domains, memory: &memory, caps },
                &options.preset,
                &mut preparing,
            )?;
            let run = RunFolder { folder: run.folder, config };
            plans.push(RunPlan { run, domains, limits, memory, case_bytes, machine });
        }
        Ok(plans)
    }

    /// Prepares the cases that new runs train on, those of all folds of a cross-validation. No adapter is needed for it.
    ///
    /// # Errors
    ///
    /// Where the data cannot be trained with, or a case cannot be prepared or kept.
    pub fn prepare(&mut self, observer: &mut dyn Observer) -> Result<Vec<PreparedDomain>> {
        let mut prepared = Vec::new();
        for run in self.runs.clone() {
            let store = self.store(&run.config)?;
            let stop = observer.stop();
            let tell = &mut |progress: &Progress| observer.preparing(progress);
            let mut preparing = Preparing { store: &store, tell, ahead: true, stop };
            for (plan, cases) in train::prepare(&run.config, self.options()?, &mut preparing)? {
                prepared.push(PreparedDomain { plan, cases, folder: store.folder().into() });
            }
        }
        Ok(prepared)
    }

    /// Plans new runs as [`Runs::plan`] and writes `config.toml` and `plan.json` of each into its folder, where [`Runs::open`]
    /// finds them.
    ///
    /// # Errors
    ///
    /// As [`Runs::plan`], and where a folder holds a run that has a checkpoint, something that a run would write is something
    /// that it reads, or a file cannot be written.
    pub fn write_plans(
        &mut self,
        caps: &Caps,
        observer: &mut dyn Observer,
    ) -> Result<Vec<RunPlan>> {
        self.claim()?;
        // once all of them can be planned
        let plans = self.plan(caps, observer)?;
        self.write_all(&plans)?;
        Ok(plans)
    }

    /// Writes plans: all of them, or nobody goes on with some.
    fn write_all(&self, plans: &[RunPlan]) -> Result<()> {
        let planning = match plans {
            [_] => None,
            _ => Some(Planning::begin(&self.out)?),
        };
        for RunPlan { run, domains, .. } in plans {
            write_plan(&run.config, domains, &run.folder)?;
        }
        planning.map_or(Ok(()), Planning::end)
    }

    fn options(&self) -> Result<&PlanOptions> {
        self.new.as_ref().ok_or_else(|| Error::Internal("a run that goes on has its plan".into()))
    }

    /// Trains and validates the runs one after another, then scores folds together; gives whether it came to that, or the
    /// observer stopped it, after which [`Runs::open`] goes on.
    ///
    /// # Errors
    ///
    /// As [`Run::begin`], [`Run::open`] and [`Run::complete`].
    pub fn complete(&mut self, gpu: &Gpu, observer: &mut dyn Observer) -> Result<bool> {
        self.claim()?;
        if let (Some(options), [run]) = (self.new.clone(), self.runs.clone().as_slice()) {
            let store = self.store(&run.config)?;
            return Run::begin_claimed(gpu, run.clone(), &options, &store, observer)?
                .complete(observer);
        }
        if self.new.is_some() {
            // all of them first: whoever goes on then finds those that were not begun
            let plans = self.plan(&caps(gpu), observer)?;
            self.write_all(&plans)?;
            self.runs = plans.into_iter().map(|plan| plan.run).collect();
            self.new = None;
        }
        for run in &self.runs.clone() {
            let store = self.store(&run.config)?;
            if !Run::open_claimed(gpu, run, &store, observer)?.complete(observer)? {
                return Ok(false);
            }
        }
        for (parent, runs) in folds(&self.runs) {
            let folders: Vec<&Path> = runs.iter().map(|run| run.folder.as_path()).collect();
            let scores = combine(parent, &folders)?;
            write_at_end(parent);
            scores.iter().try_for_each(|scores| observer.combined(scores))?;
        }
        Ok(true)
    }
}

/// Refuses a length that a run has reached.
fn check_longer(folder: &Path, length: Length) -> Result<()> {
    let file = folder.join(CHECKPOINT);
    if !file.exists() {
        return Ok(());
    }
    let done = Checkpoint::read(&file)?;
    let (name, found, reached) = match length {
        Length::Steps(steps) if steps <= done.steps() => {
            ("steps", steps.to_string(), done.steps().to_string())
        }
        Length::Minutes(minutes) if minutes * 60.0 <= done.seconds() => {
            ("minutes", minutes.to_string(), format!("{:.1}", done.seconds() / 60.0))
        }
        _ => return Ok(()),
    };
    let expected = format!("more than the {reached} that {} has already", folder.display());
    let remedy = "Ask for the length of the whole run, what is done included.";
    Err(Error::setting(name, found, expected, remedy))
}

/// The runs that the settings ask for: in the independent mode one for each dataset.
fn networks(config: &RunConfig, preset: &PresetChoice, out: &Path) -> Result<Vec<RunFolder>> {
    if config.mode != Mode::Independent || config.data.len() < 2 {
        return Ok(vec![RunFolder { folder: out.to_path_buf(), config: config.clone() }]);
    }
    let mut runs = Vec::new();
    for dataset in datasets(config, preset)? {
        // `..` has a name, too
        let dir = dataset.dir.canonicalize().unwrap_or_else(|_| dataset.dir.clone());
        let name = dir.file_name().map_or_else(|| safe_name(&dataset.name).into(), PathBuf::from);
        let mut config = RunConfig { data: vec![dataset.dir.clone()], ..config.clone() };
        if let Fold::HoldOut(names) = &mut config.fold {
            names.retain(|name| dataset.named(name).is_ok_and(|case| case.is_some()));
        }
        // those of the other datasets mean nothing here
        let opened = Dataset::open(&dataset.dir)?;
        let means = |e: &Exclusion| opened.cases.iter().any(|c| e.means(&opened, &c.id));
        config.selection.exclude.retain(means);
        runs.push(RunFolder { folder: out.join(name), config });
    }
    check_folders(&runs)?;
    Ok(runs)
}

/// Refuses networks of their own that would share a folder, which has the name of the dataset's.
fn check_folders(runs: &[RunFolder]) -> Result<()> {
    for (index, run) in runs.iter().enumerate() {
        if let Some(other) = runs[..index].iter().find(|other| other.folder == run.folder) {
            let [first, second] = [other, run].map(|run| run.config.data[0].display());
            let folder = run.folder.display();
            return Err(Error::setting(
                "data",
                format!("two datasets whose runs would share {folder}: {first} and {second}"),
                "folders with names of their own in the independent mode",
                "Rename one of them, or train them one by one.",
            ));
        }
    }
    Ok(())
}

/// A run for each fold, as many as the dataset with most of them has.
fn folds_of(run: &RunFolder, preset: &PresetChoice) -> Result<Vec<RunFolder>> {
    let count = datasets(&run.config, preset)?.iter().map(Dataset::folds).max().unwrap_or(0);
    if count == 0 {
        return Err(Error::setting(
            "fold",
            "all",
            "a dataset of at least two cases",
            "Use `fold` none to train without validation, or add cases.",
        ));
    }
    let fold = |index: usize| RunFolder {
        folder: run.folder.join(format!("{FOLD}{index}")),
        config: RunConfig { fold: Fold::Index(index), ..run.config.clone() },
    };
    Ok((0..count).map(fold).collect())
}

/// Runs that are folds of one cross-validation, by the folder that they share.
fn folds(runs: &[RunFolder]) -> BTreeMap<&Path, Vec<&RunFolder>> {
    let mut folds: BTreeMap<&Path, Vec<&RunFolder>> = BTreeMap::new();
    for run in runs {
        let name = run.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_fold = match run.config.fold {
            Fold::Index(index) => name == Some(format!("{FOLD}{index}")),
            _ => false,
        };
        if let Some(parent) = run.folder.parent().filter(|_| is_fold) {
            folds.entry(parent).or_default().push(run);
        }
    }
    folds.retain(|_, runs| runs.len() > 1);
    folds
}

/// Scores of all folds together.
fn combined(runs: &[RunFolder], preset: &PresetChoice) -> Result<Vec<Combined>> {
    let mut files = BTreeMap::new();
    for (parent, runs) in folds(runs) {
        for run in runs {
            for dataset in datasets(&run.config, preset)? {
                let file = validation_folder(parent, &dataset.name).join(SUMMARY);
                files.insert(file, dataset.dir);
            }
        }
    }
    Ok(files.into_iter().map(|(file, dataset)| Combined { file, dataset }).collect())
}
