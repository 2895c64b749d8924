//! The cases of a dataset with what is kept of them: read and prepared where it is not there yet, and found again.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::case::{CaseData, Facts, Piece, Points};
use super::contents::{Index, Key};
use super::entry::{Entry, Origin};
use super::store::{INDEX, SUMMARIES, Store};
use super::summary::Summary;
use super::work::{Budget, Job, Jobs, Stage, Tell};
use crate::base::Result;
use crate::dataset::{Case, Dataset, Labels};
use crate::imaging;
use crate::imaging::{LabelMap, Normalisation, Prepared, Resampling, Volume, VoxelBox};

/// Of how cases are prepared; another one wherever the same settings would give other voxels.
const VERSION: u32 = 1;

/// How cases are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// How intensities become comparable.
    pub normalisation: Normalisation,
    /// What resamples it.
    pub resampling: Resampling,
    /// What label values mean.
    pub labels: Labels,
}

impl Recipe {
    /// The key of a case of these contents.
    fn key(&self, dataset: &Dataset, contents: &[Key]) -> Key {
        let mut table: Vec<u8> = (0..=u8::MAX).collect();
        self.labels.encode(&mut table);
        let Self { spacing, normalisation, resampling, .. } = self;
        let settings =
            format!("{:?} {spacing:?} {normalisation:?} {resampling:?}", dataset.matching);
        let version = VERSION.to_le_bytes();
        let parts = [b"prepared".as_slice(), &version, settings.as_bytes(), &table];
        Key::of(parts.into_iter().chain(contents.iter().map(|key| key.as_str().as_bytes())))
    }

    fn prepare(&self, case: &Case, image: &Volume, label: &mut LabelMap) -> Result<Prepared> {
        self.labels.encode(label.as_mut_slice());
        imaging::prepare(image, Some(label), self.spacing, &self.normalisation, self.resampling)
            .map_err(|e| e.about(&case.images[0]))
    }
}

/// Bytes that reading a case takes for each voxel of a channel: as it is, a copy, and the file's own.
const READING: u64 = 12;
/// The same for preparing it, before and after resampling.
const PREPARING: [u64; 2] = [16, 20];
/// What a case takes beside its voxels.
const CASE: u64 = 32 << 20;

/// Bytes of memory that a case takes at most, about, by its header: read, and prepared where there is a recipe. Nothing of one
/// whose header cannot be read, which reading it tells.
fn footprint(case: &Case, recipe: Option<&Recipe>) -> u64 {
    let extents = case.images.iter().filter_map(|path| imaging::peek(path, None));
    let of = |extent: imaging::Extent| {
        let voxels = extent.voxels.saturating_mul(extent.channels) as u64;
        let Some(recipe) = recipe else { return voxels.saturating_mul(READING) };
        let to: f64 = recipe.spacing.iter().product();
        let ratio = if to > 0.0 { extent.voxel_volume / to } else { 1.0 };
        let after = (voxels as f64 * ratio) as u64;
        let [old, new] = PREPARING;
        voxels.saturating_mul(old).saturating_add(after.saturating_mul(new))
    };
    extents.map(of).fold(CASE, u64::saturating_add)
}

/// A dataset and the store that keeps what its cases become.
#[derive(Clone)]
pub struct Cohort {
    store: Arc<Store>,
    dataset: Arc<Dataset>,
}

/// How a case of some contents turns into something: found where it is kept, else made.
struct Turn<F, M> {
    find: F,
    make: M,
}

/// What a case turns into, where it is known.
struct Found<T> {
    contents: Option<Vec<Key>>,
    known: Option<T>,
}

impl Cohort {
    /// Of a dataset.
    pub fn new(store: Arc<Store>, dataset: Dataset) -> Self {
        Self { store, dataset: Arc::new(dataset) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    fn index(&self) -> Index {
        Index::open(&self.store.within(INDEX), &self.dataset.dir)
    }

    fn summary_file(&self, contents: &[Key]) -> PathBuf {
        let key = Summary::key(&self.dataset, contents);
        self.store.within(SUMMARIES).join(key.as_str())
    }

    fn kept_summary(&self, case: &Case, contents: &[Key]) -> Option<Summary> {
        Summary::read(&self.summary_file(contents))
            .filter(|summary| summary.fits(&self.dataset, case))
    }

    /// Reads a case and keeps its summary, unless there is one.
    fn read(&self, case: &Case, contents: &[Key]) -> Result<(Volume, LabelMap, Summary)> {
        let (image, label) = self.dataset.load(case)?;
        let file = self.summary_file(contents);
        if let Some(summary) = self.kept_summary(case, contents) {
            return Ok((image, label, summary));
        }
        let summary = Summary::of(&image, &label, &self.dataset.labels);
        summary.write(&file)?;
        Ok((image, label, summary))
    }

    /// The contents of a case's files. Where these cannot be read, reading the case says it better.
    fn contents(&self, index: &Index, case: &Case) -> Result<Vec<Key>> {
        index.case(case).map_err(|error| self.dataset.load(case).err().unwrap_or(error))
    }

    /// Finds what is kept of the cases without reading any file that the index knows; then does the rest.
    fn each<T: Send + Sync>(
        &self,
        stage: Stage,
        cases: &[&Case],
        recipe: Option<&Recipe>,
        tell: &mut Tell<'_>,
        turn: Turn<
            impl Fn(&Case, &[Key]) -> Option<T> + Sync,
            impl Fn(&Case, &[Key]) -> Result<T> + Sync,
        >,
    ) -> Result<Vec<T>> {
        let Turn { find, make } = turn;
        let index = self.index();
        let look = |case: &&&Case| {
            let contents = index.known(case);
            let known = contents.as_ref().and_then(|contents| find(case, contents));
            Found { contents, known }
        };
        let mut found: Vec<Found<T>> = cases.par_iter().map(|case| look(&case)).collect();
        let missing: Vec<usize> =
            (0..cases.len()).filter(|at| found[*at].known.is_none()).collect();
        let job = |at: &usize| Job { bytes: footprint(cases[*at], recipe), work: *at };
        let jobs = missing.iter().map(job).collect();
        let jobs = Jobs { stage, dataset: &self.dataset.name, jobs };
        let made = jobs.run(&Budget::of_machine(), tell, |at| {
            let case = cases[*at];
            let contents = match &found[*at].contents {
                Some(contents) => contents.clone(),
                None => self.contents(&index, case)?,
            };
            // of files that were only touched
            find(case, &contents).map_or_else(|| make(case, &contents), Ok)
        });
        // what was hashed stays known even where a case fails
        index.save()?;
        for (at, value) in missing.into_iter().zip(made?) {
            found[at].known = Some(value);
        }
        Ok(found.into_iter().filter_map(|found| found.known).collect())
    }

    /// What the cases hold, in their order.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read or the store cannot be written, and what `tell` gives.
    pub fn summaries(&self, cases: &[&Case], tell: &mut Tell<'_>) -> Result<Vec<Summary>> {
        let find = |case: &Case, contents: &[Key]| self.kept_summary(case, contents);
        let make = |case: &Case, contents: &[Key]| {
            self.read(case, contents).map(|(_, _, summary)| summary)
        };
        self.each(Stage::Reading, cases, None, tell, Turn { find, make })
    }

    /// As [`Cohort::summaries`] where it is known how the cases will be prepared: both from one reading of their files.
    ///
    /// # Errors
    ///
    /// As [`Cohort::summaries`], and where a case cannot be prepared.
    pub fn summaries_with(
        &self,
        cases: &[&Case],
        recipe: &Recipe,
        tell: &mut Tell<'_>,
    ) -> Result<Vec<Summary>> {
        let find = |case: &Case, contents: &[Key]| self.kept_summary(case, contents);
        let make = |case: &Case, contents: &[Key]| {
            let mut summary = None;
            let key = recipe.key(&self.dataset, contents);
            self.store.uses(std::slice::from_ref(&key))?;
            self.made(case, contents, recipe, &mut summary)?;
            // prepared before, but never summed up
            summary.map_or_else(|| self.read(case, contents).map(|(_, _, summary)| summary), Ok)
        };
        self.each(Stage::Preparing, cases, Some(recipe), tell, Turn { find, make })
    }

    /// Makes a case unless it is there; its summary, where its files were read.
    fn made(
        &self,
        case: &Case,
        contents: &[Key],
        recipe: &Recipe,
        summary: &mut Option<Summary>,
    ) -> Result<Entry> {
        let key = recipe.key(&self.dataset, contents);
        self.store.make(
            &key,
            |_| true,
            || {
                let (image, mut label, read) = self.read(case, contents)?;
                *summary = Some(read);
                Ok((recipe.prepare(case, &image, &mut label)?, self.origin(case)))
            },
        )
    }

    fn origin(&self, case: &Case) -> Origin {
        Origin { dataset: self.dataset.name.clone(), case: case.id.clone() }
    }

    /// The prepared cases, in their order: those that are kept, and the others made now.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read or prepared or the store cannot be written, and what `tell` gives.
    pub fn prepared(
        &self,
        cases: &[&Case],
        recipe: &Recipe,
        tell: &mut Tell<'_>,
    ) -> Result<Vec<StoredCase>> {
        let maker = Arc::new(Maker { cohort: self.clone(), recipe: recipe.clone() });
        let index = self.index();
        let known = cases.iter().filter_map(|case| index.known(case));
        let keys: Vec<Key> = known.map(|contents| recipe.key(&self.dataset, &contents)).collect();
        self.store.uses(&keys)?;
        let stored = |case: &Case, contents: &[Key], entry: Entry| {
            let (case, contents, maker) = (case.clone(), contents.to_vec(), maker.clone());
            StoredCase { case, contents, entry, maker }
        };
        let find = |case: &Case, contents: &[Key]| {
            let key = recipe.key(&self.dataset, contents);
            // before it is looked for: afterwards it might leave
            self.store.uses(std::slice::from_ref(&key)).ok()?;
            Some(stored(case, contents, self.store.find(&key)?))
        };
        let make = |case: &Case, contents: &[Key]| {
            self.store.uses(&[recipe.key(&self.dataset, contents)])?;
            let entry = self.made(case, contents, recipe, &mut None)?;
            Ok(stored(case, contents, entry))
        };
        self.each(Stage::Preparing, cases, Some(recipe), tell, Turn { find, make })
    }

    /// What of these cases is prepared already.
    pub fn kept(&self, cases: &[&Case], recipe: &Recipe) -> KeptCases {
        let index = self.index();
        let bytes =
            |case: &&&Case| self.store.bytes(&recipe.key(&self.dataset, &index.case(case).ok()?));
        let kept: Vec<u64> = cases.par_iter().filter_map(|case| bytes(&case)).collect();
        KeptCases { cases: kept.len(), bytes: kept.iter().sum() }
    }

    /// Bytes of memory that preparing these cases takes at most, about: as many at once as there are cores and memory allows.
    pub fn making(&self, cases: &[&Case], recipe: &Recipe) -> u64 {
        let mut bytes: Vec<u64> =
            cases.par_iter().map(|case| footprint(case, Some(recipe))).collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        let most = bytes.first().copied().unwrap_or(0);
        let together = bytes.iter().take(rayon::current_num_threads()).sum::<u64>();
        together.min(Budget::of_machine().bytes().max(most))
    }
}

/// Prepared cases of a dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptCases {
    /// How many.
    pub cases: usize,
    /// On disk.
    pub bytes: u64,
}

/// What is needed to make a case again.
struct Maker {
    cohort: Cohort,
    recipe: Recipe,
}

/// A prepared case in the store, from which boxes are read. Where its files were damaged, it is made again.
pub struct StoredCase {
    case: Case,
    contents: Vec<Key>,
    entry: Entry,
    maker: Arc<Maker>,
}

impl StoredCase {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.case.id
    }

    /// What drawing needs to know of it.
    pub fn facts(&self) -> &Facts {
        &self.entry.about.facts
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.entry.about.bytes()
    }

    /// Reads something; where that fails, makes the case again unless somebody did so meanwhile, and reads once more.
    fn mended<T>(&self, read: impl Fn(&Entry) -> Result<T>) -> Result<T> {
        let error = match read(&self.entry) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Maker { cohort, recipe } = &*self.maker;
        let key = recipe.key(&cohort.dataset, &self.contents);
        let whole = |entry: &Entry| entry.verify().is_ok();
        cohort.store.make(&key, whole, || {
            log::warn!("{}: its prepared data is damaged and made anew: {error}", self.case.id);
            let (image, mut label) = cohort.dataset.load(&self.case)?;
            Ok((recipe.prepare(&self.case, &image, &mut label)?, cohort.origin(&self.case)))
        })?;
        read(&self.entry)
    }
}

impl CaseData for StoredCase {
    fn facts(&self) -> Cow<'_, Facts> {
        Cow::Borrowed(&self.entry.about.facts)
    }

    fn point(&self, of: Points, index: usize) -> Result<u32> {
        self.mended(|entry| entry.point(of, index))
    }

    fn read(&self, bounds: VoxelBox) -> Result<Piece> {
        self.mended(|entry| entry.read(bounds))
    }
}
