//! The ten tasks of the Medical Segmentation Decathlon, as they are published on AWS Open Data.

use super::digest::Digest;
use super::source::Source;

/// Where the archives lie, unless a mirror is named.
pub const MIRROR: &str = "https://msd-for-monai.s3-us-west-2.amazonaws.com";
/// Names a mirror.
pub const MIRROR_VARIABLE: &str = "U2SEG_MIRROR";

/// A task of the Decathlon.
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    /// Of its folder, and of its archive without `.tar`.
    pub name: &'static str,
    /// What the images are.
    pub modality: &'static str,
    /// What is labelled.
    pub labels: &'static str,
    /// Of the archive, about, in MB.
    pub megabytes: u32,
    /// Of the archive, as MONAI lists it.
    md5: &'static str,
}

const fn task(
    name: &'static str,
    modality: &'static str,
    labels: &'static str,
    megabytes: u32,
    md5: &'static str,
) -> Task {
    Task { name, modality, labels, megabytes, md5 }
}

/// All of them, in their order.
pub static TASKS: [Task; 10] = [
    task(
        "Task01_BrainTumour",
        "MR, four sequences",
        "oedema, non-enhancing and enhancing tumour",
        7_600,
        "240a19d752f0d9e9101544901065d872",
    ),
    task("Task02_Heart", "MR", "left atrium", 460, "06ee59366e1e5124267b774dbd654057"),
    task("Task03_Liver", "CT", "liver, tumour", 29_000, "a90ec6c4aa7f6a3d087205e23d4e6397"),
    task(
        "Task04_Hippocampus",
        "MR",
        "anterior and posterior hippocampus",
        30,
        "9d24dba78a72977dbd1d2e110310f31b",
    ),
    task(
        "Task05_Prostate",
        "MR, two sequences",
        "peripheral and transition zone",
        240,
        "35138f08b1efaef89d7424d2bcc928db",
    ),
    task("Task06_Lung", "CT", "tumour", 9_100, "8afd997733c7fc0432f71255ba4e52dc"),
    task("Task07_Pancreas", "CT", "pancreas, tumour", 12_300, "4f7080cfca169fa8066d17ce6eb061e4"),
    task(
        "Task08_HepaticVessel",
        "CT",
        "hepatic vessels, tumour",
        9_300,
        "641d79e80ec66453921d997fbf12a29c",
    ),
    task("Task09_Spleen", "CT", "spleen", 1_600, "410d4a301da4e5b2f6f86ec3ddba524e"),
    task("Task10_Colon", "CT", "colon cancer", 6_300, "bad7a188931dc2f6acf72b08eb6202d0"),
];

impl Task {
    /// By its name, with or without its number, or by its number; letter case does not count.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.trim().to_ascii_lowercase();
        let means = |(index, task): &(usize, &Self)| {
            let own = task.name.to_ascii_lowercase();
            let short = own.split_once('_').map(|(_, short)| short.to_string());
            own == name || short.as_ref() == Some(&name) || (index + 1).to_string() == name
        };
        TASKS.iter().enumerate().find(means).map(|(_, task)| task)
    }

    /// The published archive, or that of a mirror, whose sum must be the same.
    pub fn source(&self, mirror: &str) -> Source {
        Source {
            name: self.name.into(),
            url: format!("{}/{}.tar", mirror.trim_end_matches('/'), self.name),
            digest: Digest::Md5(self.md5.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_names_numbers_and_sums() {
        for (index, task) in TASKS.iter().enumerate() {
            assert!(task.name.starts_with(&format!("Task{:02}_", index + 1)));
            assert!(Digest::md5(task.md5).is_ok());
            assert_eq!(Task::named(task.name), Some(task));
            assert_eq!(Task::named(&(index + 1).to_string()), Some(task));
        }
        let url = Task::named("spleen").unwrap().source("http://here/msd/").url;
        assert_eq!(url, "http://here/msd/Task09_Spleen.tar");
        assert!(Task::named("Task11_Nothing").is_none() && Task::named("").is_none());
    }
}
