//! `config.toml` as people read it: a comment a section, sizes with units.

use crate::base::{Error, Result};

const HEAD: &str = "\
# Everything needed to repeat this run. Settings may be edited before the first step, of a run that `u2seg plan` wrote;
# `u2seg train --continue` then begins it. D, H, W are the axes of a volume: from feet to head, from back to front, from
# right to left.
";

/// What is said before a setting or a section.
const COMMENTS: [(&str, &str); 18] = [
    ("data", "Dataset folders, a domain each."),
    ("mode", "The network: how domains share it, and channels of its first level."),
    ("seed", "Of the first weights, the drawn splits and the patches."),
    ("schedule", "How domains share the steps."),
    ("lr", "Learning rate at the start; [rate] says how it falls."),
    ("volume_cache", "GPU memory for whole cases, such as \"1GiB\"."),
    ("cache", "Where prepared cases are kept, and how the fastest kernels are found."),
    ("precision", "How activations are stored, and the GPU memory that training may take."),
    (
        "log_every",
        "Steps between readings of the loss and between checkpoints, and minutes between checkpoints at most.",
    ),
    ("length", "How long to train: steps, or minutes over all starts of the run."),
    ("fold", "Which cases are left out of training and scored."),
    (
        "validation",
        "What is scored of them while training (`every` so many steps; without it 5 % of the time at most), and the decay of the\n# moving average of the weights.",
    ),
    ("selection", "Which cases are used, and how their files are matched."),
    ("rate", "How the learning rate falls."),
    ("loss", "What is minimised: a weight a term."),
    ("optimizer", "How weights are updated."),
    ("sampling", "Where patches lie: the share of a batch on foreground, and probabilities."),
    (
        "augment",
        "Random changes of patches: probabilities, and ranges from which they are drawn. Angles are in radians, widths in\n# voxels.",
    ),
];

/// The text of `config.toml`.
pub(super) fn text(config: &impl serde::Serialize) -> Result<String> {
    let plain = toml::to_string(config).map_err(|e| Error::Internal(e.to_string()))?;
    let mut text = HEAD.to_string();
    for line in plain.lines() {
        let name = match line.strip_prefix('[') {
            Some(section) => section.trim_end_matches(']'),
            None => line.split_once(" = ").map_or("", |(name, _)| name),
        };
        let top = line.starts_with('[') || !text.contains("\n[");
        let comment = COMMENTS.iter().find(|(of, _)| *of == name).filter(|_| top);
        if let Some((_, comment)) = comment {
            if !text.ends_with("\n\n") {
                text.push('\n');
            }
            text.push_str(&format!("# {comment}\n"));
        }
        text.push_str(line);
        text.push('\n');
    }
    // a folder's name may hold lines that look like sections
    let same = toml::from_str::<toml::Table>(&text).ok() == toml::from_str(&plain).ok();
    Ok(if same { text } else { plain })
}

/// Bytes in files: with a unit where they are whole, such as "128MiB", else a number.
pub(super) mod bytes {
    use serde::de::{Error, Unexpected};
    use serde::{Deserialize, Deserializer, Serializer};

    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }

    pub fn serialize<S: Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        let Some(bytes) = bytes else { return to.serialize_none() };
        let whole = |(_, shift): &&(&str, u32)| *bytes > 0 && bytes.trailing_zeros() >= *shift;
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => to.serialize_str(&format!("{}{unit}", bytes >> shift)),
            None => to.serialize_u64(*bytes),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = match Option::<Written>::deserialize(from)? {
            None => return Ok(None),
            Some(Written::Number(bytes)) => return Ok(Some(bytes)),
            Some(Written::Text(text)) => text,
        };
        let parsed = UNITS.iter().find_map(|(unit, shift)| {
            let number = text.trim().strip_suffix(unit)?.trim().parse::<u64>().ok()?;
            number.checked_mul(1 << shift)
        });
        let wrong = || {
            D::Error::invalid_value(
                Unexpected::Str(&text),
                &"a size such as \"4GiB\" or \"300MiB\"",
            )
        };
        parsed.map(Some).ok_or_else(wrong)
    }
}
