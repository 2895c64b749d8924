//! The published plans of six tasks of the Medical Segmentation Decathlon (3D U²-Net, MICCAI 2019).

use super::{CleanUp, Step};
use crate::data::Dataset;

/// A published plan.
#[derive(Debug, PartialEq)]
pub struct Preset {
    pub name: &'static str,
    /// Parts of a dataset's or folder's name that mean this task.
    aliases: &'static [&'static str],
    /// Voxels, D, H, W.
    pub patch: [usize; 3],
    pub pools: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Samples a step of an independent network.
    pub batch: usize,
    /// Whether tumours count as the organ.
    merges_tumours: bool,
    /// Whether a mask keeps two components.
    pairs: bool,
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
        let folder = dataset.dir.canonicalize().unwrap_or_else(|_| dataset.dir.clone());
        let folder = folder.file_name().map(|n| n.to_string_lossy().to_lowercase());
        let names = [Some(dataset.name.to_lowercase()), folder];
        let means = |preset: &&Self| {
            let mut names = names.iter().flatten();
            names.any(|name| preset.aliases.iter().any(|alias| name.contains(alias)))
        };
        PRESETS.iter().find(means)
    }

    /// Class of each label value where tumours count as the organ; empty where nothing is merged.
    pub fn class_of_label(&self, labels: &[(u8, String)]) -> Vec<u8> {
        let tumour = |name: &str| {
            let name = name.to_lowercase();
            ["cancer", "tumour", "tumor"].iter().any(|word| name.contains(word))
        };
        // the organ is label 1, and only the last labels are tumours
        let organs = labels.iter().take_while(|(_, name)| !tumour(name)).count();
        let rest_merges = labels[organs.min(labels.len())..].iter().all(|(_, name)| tumour(name));
        if !self.merges_tumours || organs < 2 || organs == labels.len() || !rest_merges {
            return Vec::new();
        }
        labels.iter().map(|(value, name)| if tumour(name) { 1 } else { *value }).collect()
    }

    /// What was done to predicted masks of `classes` classes.
    pub fn clean_up(&self, classes: usize) -> Vec<CleanUp> {
        let components = if self.pairs { Step::LargestTwo(SECOND) } else { Step::Largest };
        let steps = vec![Step::ClosingEdges(1), components];
        (1..classes as u8).map(|class| CleanUp { class, steps: steps.clone() }).collect()
    }
}

/// Which published plan a domain follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PresetChoice {
    /// The one whose name the dataset has, under the published recipe; otherwise none.
    #[default]
    Auto,
    /// None: the plan follows from the data.
    None,
    /// This one.
    Named(&'static Preset),
}

impl std::str::FromStr for PresetChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
            labels: labels.iter().enumerate().map(|(i, l)| (i as u8, (*l).into())).collect(),
            cases: Vec::new(),
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
            Preset::named(preset).unwrap().class_of_label(&dataset("", "", labels).labels)
        };
        assert_eq!(merged("liver", &["background", "liver", "cancer"]), [0, 1, 1]);
        assert_eq!(merged("pancreas", &["background", "pancreas", "Tumour"]), [0, 1, 1]);
        assert!(merged("liver", &["background", "liver"]).is_empty());
        assert!(merged("prostate", &["background", "PZ", "TZ"]).is_empty());
    }
}
