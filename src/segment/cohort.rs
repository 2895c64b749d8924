//! Many images through an ensemble as a pipeline: the next one is read and prepared, and the last one cleaned up and written,
//! while the GPU works. At most one image waits at each end, so that memory does not grow with their number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use ndarray::Array3;

use super::ensemble::Ensemble;
use super::maps::{Asked, Map, MapFile, Maps};
use super::slab::{Clock, Phase};
use crate::base::{Error, Result, Stop};
use crate::engine::gpu::Renewal;
use crate::imaging::{Grid, ImageWriter, LabelMap, Prepared, Volume};

/// What is done with each image of a cohort before and after the network, on threads of their own.
pub trait CaseWork: Sync {
    /// What names an image.
    type Job: Sync;
    /// What is kept of it from reading to writing.
    type Kept: Send;

    /// What asks to stop early: the image that is at work and those that follow then fail as stopped.
    fn stop(&self) -> Stop {
        Stop::default()
    }

    /// Reads the image.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or does not fit the network; the error names the file.
    fn read(&self, job: &Self::Job) -> Result<(Volume, Self::Kept)>;

    /// Says of an error without a file which one it is about.
    fn about(&self, job: &Self::Job, error: Error) -> Error;

    /// The maps that are written beside the mask; none where none are wanted. Folders are there.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be made.
    fn maps(&self, _: &Self::Job) -> Result<Vec<MapFile>> {
        Ok(Vec::new())
    }

    /// Takes the class indices, or the values of regions, as the networks have them; maps are written by then.
    ///
    /// # Errors
    ///
    /// Where something cannot be written.
    fn write(&self, job: &Self::Job, kept: Self::Kept, labels: LabelMap) -> Result<()>;
}

/// Told of an image by position, once it is written or failed; says whether to go on.
pub type Done<'a> = &'a mut (dyn FnMut(usize, Result<()>) -> bool + Send);

/// Seconds of each part of a case.
#[derive(Debug, Clone, Copy, Default)]
struct Seconds {
    reading: f64,
    preparing: f64,
}

/// An image that was read.
struct Ready<K> {
    cases: Vec<Arc<Prepared>>,
    kept: K,
    seconds: Seconds,
}

/// What the GPU sends to be written, in the order of the images.
enum Made<K> {
    /// Files of maps begin.
    Maps(Vec<MapFile>, Grid),
    /// Planes of a map.
    Planes(Map, Array3<f32>),
    /// All of an image, or why there is not.
    Done(Result<Segmented<K>>),
}

struct Segmented<K> {
    labels: LabelMap,
    kept: K,
    /// Where the time went so far, in words, with its seconds.
    told: String,
    seconds: f64,
    forward: f64,
}

/// What the network made of an image.
struct Labelled {
    labels: LabelMap,
    told: String,
    seconds: f64,
    forward: f64,
}

/// The networks, on another device where theirs was lost.
struct Devices<'a> {
    first: &'a Ensemble,
    other: Option<Ensemble>,
    renewal: Renewal,
}

impl Devices<'_> {
    /// Does an image's work, from its beginning on another device where one is lost.
    fn run<T>(&mut self, work: impl Fn(&Ensemble) -> Result<T>) -> Result<T> {
        let mut done = guarded(|| work(self.other.as_ref().unwrap_or(self.first)));
        while let Err(error) = done {
            let ensemble = self.other.as_ref().unwrap_or(self.first);
            let gpu = self.renewal.after(ensemble.gpu(), error)?;
            done = match ensemble.again(&gpu) {
                Ok(ensemble) => {
                    let ensemble = self.other.insert(ensemble);
                    guarded(|| work(ensemble))
                }
                Err(error) => Err(error),
            };
        }
        self.renewal.gained();
        done
    }
}

/// Runs what must not take other images with it, whatever happens.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.unwrap_or_else(|_| Err(Error::Internal("segmenting it panicked".into())))
}

impl Ensemble {
    /// Segments images one after another. `done` is told of each in order, by position, once it is written or failed, and says
    /// whether to go on; what fails takes none of the others with it. An image whose device is lost is segmented on another one, and
    /// where four are lost in a row that error is the last thing told.
    pub fn segment_all<W: CaseWork>(&self, work: &W, jobs: &[W::Job], done: Done<'_>) {
        // a thread that is through with an image waits until the next one takes it
        let (ready, next) = sync_channel(0);
        let (made, last) = sync_channel(1);
        let cohort = Cohort { ensemble: self, work, jobs };
        let cohort = &cohort;
        std::thread::scope(|scope| {
            scope.spawn(move || cohort.read(&ready));
            scope.spawn(move || cohort.write(&last, done));
            // its ends of both channels go with it, so that neither of the others waits for a thread that is gone
            cohort.segment(next, made);
        });
    }
}

struct Cohort<'a, W: CaseWork> {
    ensemble: &'a Ensemble,
    work: &'a W,
    jobs: &'a [W::Job],
}

impl<W: CaseWork> Cohort<'_, W> {
    fn read(&self, ready: &SyncSender<Result<Ready<W::Kept>>>) {
        for job in self.jobs {
            let read = guarded(|| {
                self.work.stop().check()?;
                let start = Instant::now();
                let (volume, kept) = self.work.read(job)?;
                let reading = start.elapsed().as_secs_f64();
                let cases = self.ensemble.prepare(&volume)?;
                let preparing = start.elapsed().as_secs_f64() - reading;
                Ok(Ready { cases, kept, seconds: Seconds { reading, preparing } })
            });
            // nobody takes it where the thread of the GPU is gone
            if ready.send(read.map_err(|e| self.work.about(job, e))).is_err() {
                return;
            }
        }
    }

    fn segment(&self, next: Receiver<Result<Ready<W::Kept>>>, made: SyncSender<Made<W::Kept>>) {
        let mut devices =
            Devices { first: self.ensemble, other: None, renewal: Renewal::default() };
        for (job, ready) in self.jobs.iter().zip(next) {
            let segmented = ready.and_then(|ready| {
                let done = devices.run(|ensemble| self.one(ensemble, job, &ready, &made));
                // where there is no device left the image is not to blame
                let done = done.map_err(|e| if e.is_lost() { e } else { self.work.about(job, e) });
                done.map(|Labelled { labels, told, seconds, forward }| {
                    let kept = ready.kept;
                    Segmented { labels, kept, told, seconds, forward }
                })
            });
            let lost = segmented.as_ref().is_err_and(Error::is_lost);
            if made.send(Made::Done(segmented)).is_err() || lost {
                return;
            }
        }
    }

    fn one(
        &self,
        ensemble: &Ensemble,
        job: &W::Job,
        ready: &Ready<W::Kept>,
        made: &SyncSender<Made<W::Kept>>,
    ) -> Result<Labelled> {
        let Ready { cases, seconds, .. } = ready;
        let start = Instant::now();
        let gone = || Error::Internal("nobody takes what was segmented".into());
        let files = self.work.maps(job)?;
        let wanted: Vec<Map> = files.iter().map(|file| file.map).collect();
        let mut take = |map: Map, planes: Array3<f32>| {
            // of classes that nobody wants there are maps too
            if !wanted.contains(&map) {
                return Ok(());
            }
            made.send(Made::Planes(map, planes)).map_err(|_| gone())
        };
        let grid = cases.first().map(|case| case.grid().clone());
        let maps = match grid.filter(|_| !files.is_empty()) {
            Some(grid) => {
                made.send(Made::Maps(files, grid)).map_err(|_| gone())?;
                Some(Maps { asked: Asked::of(wanted.iter().copied()), take: &mut take })
            }
            None => None,
        };
        let mut clock = Clock::until(self.work.stop());
        let labels = ensemble.run(cases, maps, &mut clock)?;
        let Seconds { reading, preparing } = *seconds;
        Ok(Labelled {
            labels,
            told: format!("reading {reading:.2} s, preparing {preparing:.2} s, {}", clock.told()),
            seconds: reading + preparing + start.elapsed().as_secs_f64(),
            forward: clock.seconds(Phase::Forward),
        })
    }

    fn write(&self, last: &Receiver<Made<W::Kept>>, done: Done<'_>) {
        let mut index = 0;
        let mut maps = Ok(Vec::new());
        for made in last {
            match made {
                Made::Maps(files, grid) => maps = guarded(|| begin(&files, &grid)),
                Made::Planes(map, planes) => {
                    maps = maps.and_then(|maps| guarded(|| add(maps, map, &planes)));
                }
                Made::Done(segmented) => {
                    let maps = std::mem::replace(&mut maps, Ok(Vec::new()));
                    let job = &self.jobs[index];
                    let written = segmented.and_then(|segmented| {
                        let written = guarded(|| self.finish(job, maps?, segmented));
                        written.map_err(|e| self.work.about(job, e))
                    });
                    if !done(index, written) {
                        return;
                    }
                    index += 1;
                }
            }
        }
    }

    /// Writes the mask last: where it is, the case is done.
    fn finish(
        &self,
        job: &W::Job,
        maps: Vec<Writing>,
        segmented: Segmented<W::Kept>,
    ) -> Result<()> {
        let start = Instant::now();
        maps.into_iter().try_for_each(|map| map.writer.finish())?;
        let Segmented { labels, kept, told, seconds, forward } = segmented;
        self.work.write(job, kept, labels)?;
        let writing = start.elapsed().as_secs_f64();
        let all = seconds + writing;
        let share = 100.0 * forward / all.max(f64::MIN_POSITIVE);
        log::info!(
            "a case took {all:.2} s, {share:.0} % of it the network: {told}, cleaning up and writing {writing:.2} s"
        );
        Ok(())
    }
}

/// A map on its way into its file.
struct Writing {
    map: Map,
    writer: ImageWriter,
}

fn begin(files: &[MapFile], grid: &Grid) -> Result<Vec<Writing>> {
    let begin = |MapFile { map, file }: &MapFile| {
        Ok(Writing { map: *map, writer: ImageWriter::begin(file, grid)? })
    };
    files.iter().map(begin).collect()
}

fn add(mut maps: Vec<Writing>, map: Map, planes: &Array3<f32>) -> Result<Vec<Writing>> {
    match maps.iter_mut().find(|writing| writing.map == map) {
        Some(writing) => writing.writer.add(planes.view())?,
        None => return Err(Error::Internal(format!("{map:?} that nobody wants"))),
    }
    Ok(maps)
}
