//! The published plans of six tasks of the Medical Segmentation Decathlon (3D U²-Net, MICCAI 2019).

use std::path::{Path, PathBuf};

use super::inference::{CleanUp, CleanUpStep};
use crate::base::files::folder;
use crate::base::{Error, Result};
use crate::dataset::{Case, Class, DESCRIPTION, Dataset, LabelDescription, Labels};
use crate::imaging::stem;

/// A published plan.
#[derive(Debug, PartialEq)]
pub struct Preset {
    /// As users write it.
    pub name: &'static str,
    /// Parts of a dataset's or folder's name that mean this task.
    aliases: &'static [&'static str],
    /// Voxels, D, H, W.
    pub patch: [usize; 3],
    /// Halvings of D, H, W.
    pub pools: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Samples a step of an independent network.
    pub batch: usize,
    /// Whether tumours count as the organ.
    merges_tumours: bool,
    /// Whether a mask keeps two components.
    pairs: bool,
    /// Label values of the published files that mean nothing.
    stray: &'static [u8],
}

/// What the published training knows, in the Decathlon's order.
pub static PRESETS: [Preset; 6] = [
    Preset {
        name: "heart",
        aliases: &["heart", "left atrium"],
        patch: [80, 192, 128],
        pools: [4, 5, 5],
        spacing: [1.37, 1.25, 1.25],
        batch: 2,
        merges_tumours: false,
        pairs: false,
        stray: &[],
    },
    Preset {
        name: "liver",
        aliases: &["liver"],
        patch: [128, 128, 128],
        pools: [5, 5, 5],
        spacing: [1.0, 0.77, 0.77],
        batch: 2,
        merges_tumours: true,
        pairs: false,
        stray: &[],
    },
    Preset {
        name: "hippocampus",
        aliases: &["hippocampus"],
        patch: [40, 56, 40],
        pools: [3, 3, 3],
        spacing: [1.0, 1.0, 1.0],
        batch: 9,
        merges_tumours: false,
        pairs: true,
        stray: &[254],
    },
    Preset {
        name: "prostate",
        aliases: &["prostate"],
        patch: [20, 192, 192],
        pools: [2, 5, 5],
        spacing: [3.6, 0.625, 0.625],
        batch: 4,
        merges_tumours: false,
        pairs: true,
        stray: &[],
    },
    Preset {
        name: "pancreas",
        aliases: &["pancreas"],
        patch: [96, 160, 128],
        pools: [4, 5, 5],
        spacing: [2.5, 0.8, 0.8],
        batch: 2,
        merges_tumours: true,
        pairs: false,
        stray: &[],
    },
    Preset {
        name: "spleen",
        aliases: &["spleen"],
        patch: [96, 160, 128],
        pools: [4, 5, 5],
        spacing: [5.0, 0.8, 0.8],
        batch: 2,
        merges_tumours: false,
        pairs: false,
        stray: &[],
    },
];

/// Share of the largest component that a second one must have.
const SECOND: f64 = 0.1;

impl Preset {
    /// By its own name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name))
    }

    /// By the name of a dataset or of its folder.
    pub fn of(dataset: &Dataset) -> Option<&'static Self> {
        Self::told_by(&dataset.dir, Some(&dataset.name))
    }

    /// By a folder's name, or that of the dataset in it.
    fn told_by(dir: &Path, name: Option<&str>) -> Option<&'static Self> {
        let folder = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let folder = folder.file_name().map(|n| n.to_string_lossy().to_lowercase());
        let names = [name.map(str::to_lowercase), folder];
        let means = |preset: &&Self| {
            let mut names = names.iter().flatten();
            names.any(|name| preset.aliases.iter().any(|alias| name.contains(alias)))
        };
        PRESETS.iter().find(means)
    }

    /// The labels as this task has them: tumours count as the organ, values that mean nothing as background.
    pub fn labels(&self, labels: &Labels) -> Labels {
        let tumour = |name: &str| {
            let name = name.to_lowercase();
            ["cancer", "tumour", "tumor"].iter().any(|word| name.contains(word))
        };
        let stray = self.stray(labels);
        let labels = Labels { stray, ..labels.clone() };
        // the organ is label 1, and only the last labels are tumours
        let classes = &labels.classes;
        let organs = classes.iter().take_while(|class| !tumour(&class.name)).count();
        let rest_merges = classes[organs..].iter().all(|class| tumour(&class.name));
        let merges = self.merges_tumours && !labels.regions && rest_merges;
        if !merges || organs < 2 || organs == classes.len() {
            return labels;
        }
        let into = |(class, index): (&Class, u8)| if tumour(&class.name) { 1 } else { index };
        let into: Vec<u8> = classes.iter().zip(0..=u8::MAX).map(into).collect();
        labels.merged(&into)
    }

    /// Values of this task's files that mean nothing, unless the labels say what they mean.
    pub fn stray(&self, labels: &Labels) -> Vec<u8> {
        let known = Labels { stray: Vec::new(), ..labels.clone() }.known();
        self.stray.iter().copied().filter(|value| !known.contains(value)).collect()
    }

    /// What was done to predicted masks; nothing to regions, which may overlap.
    pub fn clean_up(&self, labels: &Labels) -> Vec<CleanUp> {
        let classes = if labels.regions { 0 } else { labels.outputs() };
        let components = match self.pairs {
            true => CleanUpStep::LargestTwo(SECOND),
            false => CleanUpStep::Largest,
        };
        let steps = vec![CleanUpStep::ClosingEdges(1), components];
        (1..classes)
            .zip(1..=u8::MAX)
            .map(|(_, class)| CleanUp { class, steps: steps.clone() })
            .collect()
    }
}

/// Which published plan a domain follows.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum PresetChoice {
    /// The one whose name the dataset has, under the published recipe; otherwise none.
    #[default]
    Auto,
    /// None: the plan follows from the data.
    None,
    /// This one.
    Named(&'static Preset),
}

/// What a dataset.json says of labels.
#[derive(Debug, Clone, Default)]
pub struct DescribedLabels {
    /// What the values mean.
    pub labels: Labels,
    /// The file that says so.
    pub file: PathBuf,
    /// Names of the classes or regions that no case has labels of.
    everywhere: Vec<String>,
    /// The cases of its folder, where they can be listed.
    cases: Vec<Case>,
}

impl DescribedLabels {
    /// Of labels that every case has; messages name the file.
    pub fn new(labels: Labels, file: impl Into<PathBuf>) -> Self {
        Self { labels, file: file.into(), ..Self::default() }
    }

    /// Names of the classes or regions that nobody labelled in a file: by the file, or by its name where it was moved.
    pub fn unlabelled(&self, label: &Path) -> &[String] {
        let file = real(label);
        let named = |case: &&Case| stem(&case.label).is_some_and(|s| Some(s) == stem(label));
        let case = self.cases.iter().find(|case| real(&case.label) == file);
        let case = case.or_else(|| self.cases.iter().find(named));
        case.map_or(&self.everywhere, |case| &case.unlabelled)
    }
}

/// A path without links, where there is such a file.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Reads what a dataset.json says of labels. Where its name or its folder's tells a task, values that mean nothing in the
/// task's files do so here.
pub fn described_labels(file: &Path) -> Result<DescribedLabels> {
    let LabelDescription { name, mut labels, unlabelled: everywhere } =
        LabelDescription::read(file)?;
    let preset = Preset::told_by(folder(file), name.as_deref());
    labels.stray = preset.map(|preset| preset.stray(&labels)).unwrap_or_default();
    if let Err(name) = labels.unlabelled(&labels, &everywhere) {
        let remedy = "Correct \"unlabelled\" there.";
        return Err(Error::file(
            file,
            format!("{name:?} as unlabelled"),
            "names of labels",
            remedy,
        ));
    }
    // a description may lie without its dataset, or beside that of another
    let own = real(file) == real(&folder(file).join(DESCRIPTION));
    let dataset = own.then(|| Dataset::open(folder(file)).ok()).flatten();
    let cases = dataset.map(|dataset| dataset.cases).unwrap_or_default();
    Ok(DescribedLabels { labels, file: file.into(), everywhere, cases })
}

impl PresetChoice {
    /// Opens a dataset. Where the choice or the name tells a task, values that mean nothing in its files do so here.
    pub fn open(&self, dir: &Path) -> Result<Dataset> {
        let mut dataset = Dataset::open(dir)?;
        let preset = match self {
            Self::Auto => Preset::of(&dataset),
            Self::None => None,
            Self::Named(preset) => Some(*preset),
        };
        dataset.labels.stray = preset.map(|p| p.stray(&dataset.labels)).unwrap_or_default();
        Ok(dataset)
    }
}

impl std::str::FromStr for PresetChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names = || PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            name => Preset::named(name)
                .map(Self::Named)
                .ok_or_else(|| format!("expected auto, none, {}; found {text}", names())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(dir: &str, name: &str, labels: &[&str]) -> Dataset {
        Dataset {
            dir: dir.into(),
            name: name.into(),
            channels: vec!["CT".into()],
            labels: Labels::plain(labels.to_vec()),
            ..Dataset::default()
        }
    }

    #[test]
    fn tasks_are_known_by_the_name_of_dataset_or_folder() {
        let of = |dir: &str, name: &str| Preset::of(&dataset(dir, name, &[])).map(|p| p.name);
        assert_eq!(of("data/Task02_Heart", "Left Atrium"), Some("heart"));
        assert_eq!(of("data/x", "PROSTATE"), Some("prostate"));
        assert_eq!(of("Task03_Liver", "mine"), Some("liver"));
        assert_eq!(of("Task22_SpinalCord", "SpinalCord"), None);
        for preset in &PRESETS {
            assert!(matches!(preset.name.parse(), Ok(PresetChoice::Named(p)) if p == preset));
            let fits = |axis: usize| preset.patch[axis].is_multiple_of(1 << preset.pools[axis]);
            assert!((0..3).all(fits), "{}", preset.name);
        }
        assert!("brain".parse::<PresetChoice>().unwrap_err().contains("hippocampus"));
    }

    #[test]
    fn tumours_count_as_the_organ_where_published_so() {
        let merged = |preset: &str, labels: &[&str]| {
            let labels = Preset::named(preset).unwrap().labels(&Labels::plain(labels.to_vec()));
            labels.classes.into_iter().map(|class| class.values).collect::<Vec<_>>()
        };
        assert_eq!(merged("liver", &["background", "liver", "cancer"]), [vec![0], vec![1, 2]]);
        assert_eq!(merged("pancreas", &["background", "pancreas", "Tumour"])[1], [1, 2]);
        assert_eq!(merged("liver", &["background", "liver"]), [[0], [1]]);
        assert_eq!(merged("prostate", &["background", "PZ", "TZ"]), [[0], [1], [2]]);
    }

    #[test]
    fn only_the_hippocampus_has_a_stray_value_and_only_where_no_label_has_it() {
        let stray = |preset: &str, labels: &Labels| Preset::named(preset).unwrap().stray(labels);
        let plain = Labels::plain(["background", "anterior"]);
        assert_eq!(stray("hippocampus", &plain), [254]);
        assert!(stray("spleen", &plain).is_empty());
        assert!(stray("hippocampus", &Labels { ignore: Some(254), ..plain }).is_empty());
    }

    #[test]
    fn cases_are_those_of_the_description_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = r#"{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a", "2": "b"},
            "training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz", "unlabelled": ["b"]}]}"#;
        std::fs::write(at("dataset.json"), text).unwrap();
        std::fs::write(at("other.json"), r#"{"labels": {"background": 0, "b": 1}}"#).unwrap();
        let unlabelled = |name: &str| {
            let described = described_labels(&at(name)).unwrap();
            described.unlabelled(&at("labelsTr/x.nii.gz")).to_vec()
        };
        assert_eq!(unlabelled("dataset.json"), ["b"]);
        assert!(unlabelled("other.json").is_empty());
    }
}
