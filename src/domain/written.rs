//! A plan as files have it: also those from before plans described their labels, which list the names of classes.

use super::inference::{CleanUp, Weighting};
use crate::dataset::{Class, Labels};
use crate::imaging::{Normalisation, Resampling};

#[derive(serde::Deserialize)]
pub(super) struct WrittenPlan {
    pub name: String,
    pub channels: usize,
    labels: Option<Labels>,
    /// Names of the classes, background first.
    #[serde(default)]
    classes: Vec<String>,
    /// Class of each label value, where several were merged; without it each value is a class.
    #[serde(default)]
    class_of_label: Vec<u8>,
    pub spacing: [f64; 3],
    pub patch: [usize; 3],
    #[serde(default, rename = "cut")]
    pub crop: Option<[usize; 3]>,
    pub pools: [usize; 3],
    pub batch: usize,
    pub normalisation: Normalisation,
    #[serde(default)]
    pub resampling: Resampling,
    #[serde(default)]
    pub preset: Option<String>,
    #[serde(default)]
    pub weighting: Weighting,
    #[serde(default)]
    pub clean_up: Vec<CleanUp>,
}

/// Counted as background by every domain then.
const STRAY: u8 = 254;

impl WrittenPlan {
    /// What its label values mean.
    pub fn labels(&self) -> Labels {
        let Some(labels) = &self.labels else { return self.listed_labels() };
        labels.clone()
    }

    /// The labels of a plan that lists names of classes.
    fn listed_labels(&self) -> Labels {
        let mut labels = Labels::plain(self.classes.iter().map(String::as_str));
        if !self.class_of_label.is_empty() {
            for (class, index) in labels.classes.iter_mut().zip(0..=u8::MAX) {
                let values = self.class_of_label.iter().zip(0..=u8::MAX);
                let values = values.filter(|(of, _)| **of == index);
                class.values = values.map(|(_, value)| value).collect();
                if let Some(first) = class.values.first().filter(|_| !class.values.contains(&index))
                {
                    class.value = *first;
                }
            }
        }
        if !labels.classes.iter().any(|class: &Class| class.values.contains(&STRAY)) {
            labels.stray = vec![STRAY];
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::DomainPlan;

    #[test]
    fn plans_that_list_names_of_classes_are_read() {
        let text = |more: &str| {
            format!(
                r#"{{"name": "Liver", "channels": 1, "classes": ["background", "liver"]{more},
                "spacing": [1.0, 1.0, 1.0], "patch": [16, 16, 16], "pools": [2, 2, 2], "batch": 2,
                "normalisation": {{"kind": "z_score"}}}}"#
            )
        };
        let plain: DomainPlan = serde_json::from_str(&text("")).unwrap();
        assert_eq!(plain.labels.known(), [0, 1, 254]);
        let merged = text(r#", "class_of_label": [0, 1, 1]"#);
        let merged: DomainPlan = serde_json::from_str(&merged).unwrap();
        assert_eq!(merged.labels.classes[1].values, [1, 2]);
        assert_eq!(plain.resampling, crate::imaging::Resampling::Cubic);
        // what is written now is read back as it is
        let now = serde_json::to_string(&merged).unwrap();
        assert!(!now.contains("class_of_label"));
        assert_eq!(serde_json::from_str::<DomainPlan>(&now).unwrap(), merged);
    }
}
