//! Datasets in the Decathlon's form from those in nnU-Net v2's, and the other way round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::case::{Case, DESCRIPTION, Fault, read_described};
use super::cases::Dataset;
use super::channels::ImageFiles;
use super::labels::Labels;
use super::splits::SPLITS;
use crate::base::files::{file_name, open_file, safe_name, write_atomically, write_with};
use crate::base::{Error, Result};
use crate::imaging::{Known, Match, files_of, read_images, read_labels, write_channels};

/// How a dataset's folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DatasetForm {
    /// The Decathlon's: cases listed in dataset.json, all channels of an image in one file.
    Decathlon,
    /// nnU-Net v2's: CASE_0000.nii.gz and so on for each channel, the cases told by the folders.
    Nnunet,
}

/// Whether a folder is that of a dataset.
pub fn holds_dataset(dir: &Path) -> bool {
    let file = dir.join(DESCRIPTION);
    file.exists() || file.is_symlink()
}

/// Files that become files of the new dataset.
#[derive(Debug)]
enum Work {
    /// Channels, in one file or in several, to one file or to one each.
    Image {
        from: Vec<PathBuf>,
        to: Vec<PathBuf>,
    },
    Label {
        from: PathBuf,
        to: PathBuf,
    },
}

/// What is read and written to convert a dataset.
#[derive(Debug)]
pub struct Conversion {
    dataset: Dataset,
    form: DatasetForm,
    out: PathBuf,
    work: Vec<Work>,
    /// Names of the cases in the new dataset, by their old ones.
    names: BTreeMap<String, String>,
    /// Images without labels.
    tests: Vec<String>,
    /// What else the old description says.
    said: BTreeMap<String, Value>,
}

const EXPECTED: &str = "a dataset that can be converted";
const ENDING: &str = ".nii.gz";

impl Conversion {
    /// Lists what is to be done; nothing is written. Without a form the dataset becomes what it is not yet.
    ///
    /// # Errors
    ///
    /// Where the dataset cannot be opened or has faults, or its labels have no place in the new form.
    pub fn plan(dir: &Path, out: &Path, form: Option<DatasetForm>) -> Result<Self> {
        let dataset = Dataset::open(dir)?;
        if let Some(fault) = dataset.faults.first() {
            return Err(fault.error());
        }
        let remedy = "Correct dataset.json.";
        let said: BTreeMap<String, Value> =
            read_described(&dir.join(DESCRIPTION), "an object", remedy)?;
        let own = match said.contains_key("channel_names") {
            true => DatasetForm::Nnunet,
            false => DatasetForm::Decathlon,
        };
        let form = form.unwrap_or(match own {
            DatasetForm::Decathlon => DatasetForm::Nnunet,
            DatasetForm::Nnunet => DatasetForm::Decathlon,
        });
        if form == DatasetForm::Decathlon && dataset.labels.regions {
            let found = "labels that are regions, which the Decathlon's form does not have";
            let remedy = "Keep nnU-Net's form, which u2seg reads.";
            return Err(Error::file(dir, found, EXPECTED, remedy));
        }
        let (work, names, tests) = (Vec::new(), BTreeMap::new(), Vec::new());
        let out = out.to_path_buf();
        let mut conversion = Self { dataset, form, out, work, names, tests, said };
        conversion.list()?;
        Ok(conversion)
    }

    fn list(&mut self) -> Result<()> {
        for Case { id, images, label, .. } in self.dataset.cases.clone() {
            let name = safe_name(&id.replace('/', "_"));
            let to = self.images("imagesTr", &name);
            self.work.push(Work::Image { from: images, to });
            let to = self.out.join("labelsTr").join(format!("{name}{ENDING}"));
            self.work.push(Work::Label { from: label, to });
            self.names.insert(id, name);
        }
        let folder = self.dataset.dir.join("imagesTs");
        if !folder.is_dir() {
            return Ok(());
        }
        let files = ImageFiles::list(&folder)?;
        for case in files.names() {
            let picked = files.pick(&folder, case, self.dataset.channels.len());
            let from = picked.whole().map_err(|fault: Fault| fault.error())?;
            let to = self.images("imagesTs", case);
            self.work.push(Work::Image { from, to });
            self.tests.push(case.clone());
        }
        Ok(())
    }

    /// The files of an image in the new dataset.
    fn images(&self, folder: &str, name: &str) -> Vec<PathBuf> {
        let folder = self.out.join(folder);
        match self.form {
            DatasetForm::Decathlon => vec![folder.join(format!("{name}{ENDING}"))],
            DatasetForm::Nnunet => (0..self.dataset.channels.len())
                .map(|channel| folder.join(format!("{name}_{channel:04}{ENDING}")))
                .collect(),
        }
    }

    /// Images and labels.
    pub fn cases(&self) -> usize {
        self.work.len()
    }

    /// All files that are read.
    pub fn reads(&self) -> Vec<PathBuf> {
        let tests = self.work.iter().flat_map(|work| match work {
            Work::Image { from, .. } => from.clone(),
            Work::Label { from, .. } => vec![from.clone()],
        });
        self.dataset.files().into_iter().chain(tests.flat_map(|file| files_of(&file))).collect()
    }

    /// All files that are written, and what each is made from.
    pub fn writes(&self) -> Vec<(PathBuf, PathBuf)> {
        let mut all = Vec::new();
        for work in &self.work {
            match work {
                Work::Image { from, to } => {
                    all.extend(to.iter().map(|file| (file.clone(), from[0].clone())));
                }
                Work::Label { from, to } => all.push((to.clone(), from.clone())),
            }
        }
        let description = self.dataset.dir.join(DESCRIPTION);
        all.push((self.out.join(DESCRIPTION), description));
        if self.dataset.splits.is_some() {
            all.push((self.out.join(SPLITS), self.dataset.dir.join(SPLITS)));
        }
        all
    }

    /// Writes the new dataset, its description last. Files of one channel that are .nii.gz already are copied as they are.
    /// `told` hears of each image and label that is done.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read or written.
    pub fn run(&self, told: &mut dyn FnMut()) -> Result<()> {
        for work in &self.work {
            match work {
                Work::Image { from, to } => self.image(from, to)?,
                Work::Label { from, to } if ends_alike(from) => copy(from, to)?,
                Work::Label { from, to } => read_labels(from, &Known::any())?.write(to)?,
            }
            told();
        }
        if let Some(splits) = &self.dataset.splits {
            let named = |ids: &[String]| ids.iter().map(|id| &self.names[id]).collect::<Vec<_>>();
            let folds = splits
                .iter()
                .map(|split| json!({"train": named(&split.train), "val": named(&split.val)}));
            write_json(&self.out.join(SPLITS), &Value::from_iter(folds).to_string())?;
        }
        let text = match self.form {
            DatasetForm::Decathlon => self.decathlon(),
            DatasetForm::Nnunet => self.nnunet(),
        };
        write_json(&self.out.join(DESCRIPTION), &text?)
    }

    fn image(&self, from: &[PathBuf], to: &[PathBuf]) -> Result<()> {
        if from.len() == to.len() && from.iter().all(|file| ends_alike(file)) {
            return from.iter().zip(to).try_for_each(|(from, to)| copy(from, to));
        }
        let volume = read_images(from, Match::default())?;
        let channels = volume.channels().len();
        if channels != self.dataset.channels.len() {
            let expected = format!("{}, as dataset.json has", self.dataset.channels.len());
            let remedy = "Correct the image, or dataset.json.";
            return Err(Error::file(&from[0], format!("{channels} channels"), expected, remedy));
        }
        write_channels(to, &volume)
    }

    /// What the old description says beside cases, channels and labels.
    fn kept(&self) -> Vec<(String, Value)> {
        const KEPT: [&str; 5] = ["description", "reference", "licence", "license", "release"];
        let mut kept = vec![("name".to_string(), json!(self.dataset.name))];
        for name in KEPT {
            kept.extend(self.said.get(name).map(|value| (name.to_string(), value.clone())));
        }
        kept
    }

    /// A file of the new dataset by its name within it.
    fn within(folder: &str, name: &str) -> String {
        format!("./{folder}/{name}{ENDING}")
    }

    fn decathlon(&self) -> Result<String> {
        let mut entries = Ordered(self.kept());
        let channels = self.dataset.channels.iter().enumerate();
        let modality = channels.map(|(index, name)| (index.to_string(), json!(name))).collect();
        let labels = &self.dataset.labels;
        let named = labels.classes.iter().flat_map(|class| {
            class.values.iter().map(|value| (value.to_string(), json!(class.name)))
        });
        let ignored = labels.ignore.iter().map(|value| (value.to_string(), json!("ignore")));
        let size = if self.dataset.channels.len() > 1 { "4D" } else { "3D" };
        let case = |case: &Case| {
            let name = &self.names[&case.id];
            let mut entry = json!({
                "image": Self::within("imagesTr", name),
                "label": Self::within("labelsTr", name),
            });
            if !case.unlabelled.is_empty() {
                entry["unlabelled"] = json!(case.unlabelled);
            }
            entry
        };
        let tests = self.tests.iter().map(|name| json!(Self::within("imagesTs", name)));
        entries.add("tensorImageSize", json!(size));
        entries.add("modality", Ordered(modality).value());
        entries.add("labels", Ordered(named.chain(ignored).collect()).value());
        entries.add("numTraining", json!(self.dataset.cases.len()));
        entries.add("numTest", json!(self.tests.len()));
        entries.add("training", self.dataset.cases.iter().map(case).collect());
        entries.add("test", tests.collect());
        entries.text()
    }

    fn nnunet(&self) -> Result<String> {
        let mut entries = Ordered(self.kept());
        let channels = self.dataset.channels.iter().enumerate();
        let channels = channels.map(|(index, name)| (index.to_string(), json!(name))).collect();
        entries.add("channel_names", Ordered(channels).value());
        let labels = &self.dataset.labels;
        // the order of regions is that of the file, which a JSON value would lose
        entries.0.push(("labels".into(), Value::Null));
        let order = entries.0.len() - 1;
        if labels.regions {
            let values: Vec<u8> = labels.classes.iter().map(|class| class.value).collect();
            entries.add("regions_class_order", json!(values));
        }
        entries.add("numTraining", json!(self.dataset.cases.len()));
        entries.add("file_ending", json!(ENDING));
        if self.dataset.cases.iter().any(|case| !case.unlabelled.is_empty()) {
            entries.add("dataset", self.keyed());
        }
        let mut lines = entries.lines()?;
        lines[order] = format!("\"labels\": {}", named(labels).text()?);
        Ok(format!("{{\n{}\n}}", lines.join(",\n")))
    }

    /// The cases by name, as nnU-Net lists them where the folders do not tell all.
    fn keyed(&self) -> Value {
        let case = |case: &Case| {
            let name = &self.names[&case.id];
            let images: Vec<String> = (0..self.dataset.channels.len())
                .map(|channel| Self::within("imagesTr", &format!("{name}_{channel:04}")))
                .collect();
            let label = Self::within("labelsTr", name);
            let files = json!({"images": images, "label": label, "unlabelled": case.unlabelled});
            (name.clone(), files)
        };
        Value::from_iter(self.dataset.cases.iter().map(case))
    }
}

/// Labels as nnU-Net writes them.
fn named(labels: &Labels) -> Ordered {
    let mut entries = Ordered(Vec::new());
    if labels.regions {
        entries.add("background", json!(0));
    }
    for class in &labels.classes {
        let values = match class.values.as_slice() {
            [value] => json!(value),
            values => json!(values),
        };
        entries.add(&class.name, values);
    }
    if let Some(value) = labels.ignore {
        entries.add("ignore", json!(value));
    }
    entries
}

/// The entries of a JSON object in their order.
struct Ordered(Vec<(String, Value)>);

impl Ordered {
    fn add(&mut self, name: &str, value: Value) {
        self.0.push((name.into(), value));
    }

    fn lines(&self) -> Result<Vec<String>> {
        let line = |(name, value): &(String, Value)| {
            let value = serde_json::to_string_pretty(value);
            let value = value.map_err(|e| Error::Internal(e.to_string()))?;
            Ok(format!("{}: {value}", json!(name)))
        };
        self.0.iter().map(line).collect()
    }

    fn text(&self) -> Result<String> {
        Ok(format!("{{\n{}\n}}", self.lines()?.join(",\n")))
    }

    /// Where the order does not matter.
    fn value(self) -> Value {
        Value::from_iter(self.0)
    }
}

fn ends_alike(file: &Path) -> bool {
    file_name(file).to_ascii_lowercase().ends_with(ENDING)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut file = open_file(from, "a file of a case")?;
    write_with(to, |to| std::io::copy(&mut file, to).map(drop))
}

fn write_json(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, format!("{text}\n").as_bytes())
}
