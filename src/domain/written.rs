//! A plan as files have it: also those from before plans described their labels, which list the names of classes.

use super::{CleanUp, DomainPlan, Weighting};
use crate::dataset::{Class, Labels};
use crate::imaging::Normalisation;

#[derive(serde::Deserialize)]
pub(super) struct Plan {
    name: String,
    channels: usize,
    labels: Option<Labels>,
    /// Names of the classes, background first.
    #[serde(default)]
    classes: Vec<String>,
    /// Class of each label value, where several were merged; without it each value is a class.
    #[serde(default)]
    class_of_label: Vec<u8>,
    spacing: [f64; 3],
    patch: [usize; 3],
    #[serde(default)]
    cut: Option<[usize; 3]>,
    pools: [usize; 3],
    batch: usize,
    normalisation: Normalisation,
    #[serde(default)]
    preset: Option<String>,
    #[serde(default)]
    weighting: Weighting,
    #[serde(default)]
    clean_up: Vec<CleanUp>,
}

/// Counted as background by every domain then.
const STRAY: u8 = 254;

/// The labels of a plan that lists names of classes.
fn labels(names: Vec<String>, class_of_label: &[u8]) -> Labels {
    let mut labels = Labels::plain(names);
    if !class_of_label.is_empty() {
        for (class, index) in labels.classes.iter_mut().zip(0..=u8::MAX) {
            let values = class_of_label.iter().zip(0..=u8::MAX).filter(|(of, _)| **of == index);
            class.values = values.map(|(_, value)| value).collect();
            if let Some(first) = class.values.first().filter(|_| !class.values.contains(&index)) {
                class.value = *first;
            }
        }
    }
    if !labels.classes.iter().any(|class: &Class| class.values.contains(&STRAY)) {
        labels.stray = vec![STRAY];
    }
    labels
}

impl From<Plan> for DomainPlan {
    fn from(plan: Plan) -> Self {
        let Plan { name, channels, spacing, patch, cut, pools, batch, normalisation, .. } = plan;
        Self {
            name,
            channels,
            labels: plan.labels.unwrap_or_else(|| labels(plan.classes, &plan.class_of_label)),
            spacing,
            patch,
            cut,
            pools,
            batch,
            normalisation,
            preset: plan.preset,
            weighting: plan.weighting,
            clean_up: plan.clean_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // what is written now is read back as it is
        let now = serde_json::to_string(&merged).unwrap();
        assert!(!now.contains("class_of_label"));
        assert_eq!(serde_json::from_str::<DomainPlan>(&now).unwrap(), merged);
    }
}
