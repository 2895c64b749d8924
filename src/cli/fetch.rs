//! `u2seg fetch`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::say::{self, bytes};
use super::signals;
use crate::base::{Error, Result, Stop};
use crate::dataset::DESCRIPTION;
use crate::fetch::{
    Digest, Fetched, Limits, MIRROR, MIRROR_VARIABLE, Progress, Source, Stage, TASKS, Task, fetch,
};
use crate::models;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg fetch Task09_Spleen                     # the Decathlon's spleen, into ./Task09_Spleen
  u2seg fetch spleen hippocampus -o /data/msd   # two tasks, by their short names
  u2seg fetch https://zenodo.org/records/1/files/scans.zip --md5 900150983cd24fb0d6963f7d28e17f72")]
pub struct Args {
    /// Tasks of the Medical Segmentation Decathlon, or an address
    ///
    /// A task is written as Task09_Spleen, spleen or 9. An address names an archive (.tar, .tar.gz, .zip), a model
    /// (.safetensors) or another file, and wants its checksum.
    #[arg(required_unless_present = "list", value_name = "TASK|URL")]
    what: Vec<String>,
    /// Folder to put it in [default: .]
    ///
    /// Models go by default to the folder in which `-m NAME` looks.
    #[arg(short, long, alias = "out", value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Published SHA-256 of the file
    #[arg(long, value_name = "HEX", value_parser = Digest::sha256, conflicts_with = "md5")]
    sha256: Option<Digest>,
    /// Published MD5 of the file
    ///
    /// It tells a broken download; it is no proof of who made the file.
    #[arg(long, value_name = "HEX", value_parser = Digest::md5)]
    md5: Option<Digest>,
    /// Where the Decathlon's archives lie, instead of AWS Open Data
    ///
    /// The environment variable U2SEG_MIRROR names it too. The checksums stay the published ones.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Most bytes to download, and to unpack from them
    #[arg(long, value_name = "SIZE", value_parser = super::args::size, default_value = "200GiB")]
    max_size: u64,
    /// Most files and folders to unpack
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().files)]
    max_files: u64,
    /// List the tasks of the Decathlon, and fetch nothing
    #[arg(long)]
    list: bool,
}

/// One thing to fetch, where it goes, and what it must hold.
struct Job {
    source: Source,
    folder: PathBuf,
    accept: fn(&Path) -> Result<()>,
}

impl Args {
    fn digest(&self) -> Option<&Digest> {
        self.sha256.as_ref().or(self.md5.as_ref())
    }

    fn mirror(&self) -> String {
        let variable = || std::env::var(MIRROR_VARIABLE).ok().filter(|mirror| !mirror.is_empty());
        self.mirror.clone().or_else(variable).unwrap_or(MIRROR.into())
    }

    fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or(".".into())
    }

    fn job(&self, what: &str) -> Result<Job> {
        if let Some(task) = Task::named(what) {
            if self.digest().is_some() {
                return Err(Error::setting(
                    "sha256, md5",
                    format!("a checksum beside the task {}", task.name),
                    "none: the published one counts",
                    "Leave it out, or give the archive's address with it.",
                ));
            }
            let source = task.source(&self.mirror());
            return Ok(Job { source, folder: self.output(), accept: a_dataset });
        }
        if !what.contains("://") {
            return Err(Error::file(
                what,
                "no task of the Decathlon, and no address",
                "a task such as Task09_Spleen, or an address that begins with https://",
                "`fetch` with --list names the tasks.",
            ));
        }
        let Some(digest) = self.digest() else {
            return Err(Error::setting(
                "sha256, md5",
                format!("no checksum for {what}"),
                "the one that was published with the file",
                "Give `sha256` or `md5`. Where none was published, download the file with another program and look at it.",
            ));
        };
        let source = Source::at(what, digest.clone())?;
        let is_model = source.name.ends_with(models::ENDING);
        let folder = match (&self.output, is_model) {
            (Some(folder), _) => folder.clone(),
            (None, true) => models::folder()?,
            (None, false) => self.output(),
        };
        let accept = if is_model { models::check } else { |_: &Path| Ok(()) };
        Ok(Job { source, folder, accept })
    }
}

/// Whether a task's folder is whole.
fn a_dataset(folder: &Path) -> Result<()> {
    if folder.join(DESCRIPTION).is_file() {
        return Ok(());
    }
    let found = format!("no {DESCRIPTION}");
    Err(Error::file(
        folder,
        found,
        "a dataset of the Decathlon",
        "Move it away, and fetch it anew.",
    ))
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    if args.list {
        return list();
    }
    if args.what.len() > 1 && args.digest().is_some() {
        return Err(Error::setting(
            "sha256, md5",
            format!("one checksum for {} files", args.what.len()),
            "one file with its checksum",
            "Fetch them one after another.",
        ));
    }
    let jobs = args.what.iter().map(|what| args.job(what)).collect::<Result<Vec<_>>>()?;
    signals::listen(stop)?;
    let limits = Limits { bytes: args.max_size, files: args.max_files };
    for job in &jobs {
        let Job { source, folder, accept } = job;
        let mut bar = Bar::new(&source.name);
        let mut watch = |progress: Progress| {
            bar.show(&progress);
            stop.check()
        };
        let fetched = fetch(source, folder, &limits, accept, &mut watch);
        bar.end();
        match fetched {
            Ok(Fetched::New(path)) => say!("{}", path.display()),
            Ok(Fetched::Before(path)) => {
                note!("{}: is there already, whole; nothing was fetched", path.display());
                say!("{}", path.display());
            }
            Err(Error::Stopped) => {
                let name = signals::name(stop);
                note!("{name}: stopped; the same command goes on from where it is");
                return Err(Error::Stopped);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn list() -> Result<()> {
    for task in &TASKS {
        let Task { name, modality, labels, megabytes, .. } = task;
        let size = match megabytes {
            1000.. => format!("{:.1} GB", f64::from(*megabytes) / 1000.0),
            _ => format!("{megabytes} MB"),
        };
        say!("{name:<21} {size:>8}  {modality}: {labels}");
    }
    say!("\nMedical Segmentation Decathlon, CC-BY-SA 4.0, from {MIRROR}");
    Ok(())
}

/// Shows how far it is: a bar on a terminal, lines elsewhere.
struct Bar {
    name: String,
    bar: ProgressBar,
    stage: Option<Stage>,
    line: Instant,
}

/// Between lines where there is no terminal.
const LINES: Duration = Duration::from_secs(10);

impl Bar {
    fn new(name: &str) -> Self {
        let bar = say::bar(None, "{msg}");
        Self { name: name.into(), bar, stage: None, line: Instant::now() }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { stage, done, total } = *progress;
        let doing = match stage {
            Stage::Downloading => "downloading",
            Stage::Checking => "checking",
            Stage::Unpacking => "unpacking",
        };
        if self.stage != Some(stage) {
            self.stage = Some(stage);
            self.begin(doing, total.is_some());
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.line.elapsed() >= LINES {
            let of = total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            note!("{}: {doing}, {}{of}", self.name, bytes(done));
            self.line = Instant::now();
        }
    }

    fn begin(&mut self, doing: &str, sized: bool) {
        self.bar.reset();
        let template = if sized {
            "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} to go"
        } else {
            "{msg} {spinner} {bytes} {bytes_per_sec}"
        };
        self.bar.set_style(say::style(template));
        self.bar.set_message(format!("{}: {doing}", self.name));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
