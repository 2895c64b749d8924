//! What the label values of a domain mean: the one description that plan and model carry, and that verify, training,
//! prediction and scores read.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::base::Error;
use crate::base::files::read_json;
use crate::imaging::IGNORED;

/// Most regions that a domain has: a bit of a word each.
pub const MAX_REGIONS: usize = 32;

/// A class or a region that the network tells apart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Class {
    /// As the description calls it.
    pub name: String,
    /// Label values that belong to it.
    pub values: Vec<u8>,
    /// The value that predicted masks hold.
    pub value: u8,
}

/// The labels of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Labels {
    /// What the network tells apart. Classes exclude one another, and the first is background (value 0). Regions may overlap,
    /// background is none of them, and where several claim a voxel of a mask the last one's value counts.
    pub classes: Vec<Class>,
    /// Whether `classes` are regions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regions: bool,
    /// Whether some cases lack the labels of some classes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Value of voxels that nobody labelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u8>,
    /// Values that occur and mean nothing; they count as background.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stray: Vec<u8>,
}

/// What is wrong with a description of labels: what was found, what is expected, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unusable {
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

fn unusable(found: impl Into<String>, expected: &'static str, remedy: &'static str) -> Unusable {
    Unusable { found: found.into(), expected, remedy }
}

/// What names of domains and labels are.
pub const NAMES: &str = "up to 200 letters, none that moves the cursor or hides others";
/// Letters of a name at most.
const LONGEST: usize = 200;

/// What is wrong with a name of a domain or a label, which stands in files' names, in logs and on terminals; None of a good one.
pub fn check_name(name: &str) -> Option<String> {
    let letters = name.chars().count();
    if letters > LONGEST {
        return Some(format!("of {letters} letters"));
    }
    // marks that turn the direction of writing among them
    let hidden =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.contains(hidden).then(|| format!("{name:?}"))
}

/// The entries of a JSON object in the order of the file, which is that of regions; also those whose name comes twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries(pub Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> serde::de::Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What a dataset.json says of labels, whether or not its dataset is there.
#[derive(Debug, Clone)]
pub struct LabelDescription {
    /// Of the dataset.
    pub name: Option<String>,
    /// What the values mean.
    pub labels: Labels,
    /// Names of the classes or regions that no case has labels of.
    pub unlabelled: Vec<String>,
}

impl LabelDescription {
    /// Reads the file, in the Decathlon's form or nnU-Net's.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, is no JSON, or describes no labels that can be used.
    pub fn read(path: &Path) -> crate::base::Result<Self> {
        #[derive(serde::Deserialize)]
        struct Written {
            name: Option<String>,
            labels: Option<Entries>,
            regions_class_order: Option<Value>,
            #[serde(default)]
            unlabelled: Vec<String>,
        }
        const EXPECTED: &str = "a dataset.json with labels as names and values";
        const REMEDY: &str = "Correct the file, or name another.";
        let written: Written = read_json(path, EXPECTED, REMEDY)?;
        let Some(labels) = written.labels else {
            return Err(Error::file(path, "no labels", EXPECTED, REMEDY));
        };
        let labels = Labels::parse(&labels, written.regions_class_order.as_ref())
            .map_err(|e| Error::file(path, e.found, e.expected, e.remedy))?;
        Ok(Self { name: written.name, labels, unlabelled: written.unlabelled })
    }
}

/// A whole number of JSON, also as text or as a float.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => {
            let whole = |v: &f64| v.fract() == 0.0 && (0.0..1e9).contains(v);
            n.as_u64().or_else(|| n.as_f64().filter(whole).map(|v| v as u64))
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// An entry of labels.
struct Entry {
    name: String,
    values: Vec<u8>,
    /// Whether it has several values: a region.
    listed: bool,
}

/// An entry in the Decathlon's form (value: name) or nnU-Net's (name: value, or name: list of values).
fn entry(key: &str, value: &Value) -> Result<Entry, Unusable> {
    let refuse = || {
        unusable(
            format!("entry {key:?}: {value} of labels"),
            "a name with a whole number from 0 to 255 or, for a region, a list of such numbers",
            "Correct the entry in dataset.json.",
        )
    };
    let byte = |value: &Value| number(value).and_then(|n| u8::try_from(n).ok()).ok_or_else(refuse);
    match (key.trim().parse::<u64>(), value) {
        (Ok(number), Value::String(name)) => {
            let value = u8::try_from(number).map_err(|_| refuse())?;
            Ok(Entry { name: name.clone(), values: vec![value], listed: false })
        }
        (_, Value::Array(list)) => {
            let values = list.iter().map(byte).collect::<Result<BTreeSet<u8>, _>>()?;
            let listed = values.len() > 1;
            match values.is_empty() {
                true => Err(refuse()),
                false => Ok(Entry {
                    name: key.to_string(),
                    values: values.into_iter().collect(),
                    listed,
                }),
            }
        }
        (_, value) => {
            Ok(Entry { name: key.to_string(), values: vec![byte(value)?], listed: false })
        }
    }
}

impl Labels {
    /// Classes whose values are 0, 1, 2, …, background first.
    pub fn plain<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let classes = names.into_iter().zip(0..=u8::MAX);
        let class =
            |(name, value): (S, u8)| Class { name: name.into(), values: vec![value], value };
        Self { classes: classes.map(class).collect(), ..Self::default() }
    }

    /// Reads the entry `labels` of a dataset.json, and `regions_class_order` where there are regions.
    pub fn parse(entries: &Entries, order: Option<&Value>) -> Result<Self, Unusable> {
        let mut found = Vec::new();
        let (mut ignore, mut regions) = (None, false);
        for (key, value) in &entries.0 {
            let Entry { name, values, listed } = entry(key, value)?;
            if name.eq_ignore_ascii_case("ignore") && values.len() == 1 {
                ignore = Some(values[0]);
                continue;
            }
            regions |= listed;
            found.push((name, values));
        }
        let labels = if regions { Self::regions(found, order)? } else { Self::classes(found) };
        let labels = Self { ignore, ..labels };
        labels.check()?;
        Ok(labels)
    }

    fn classes(mut found: Vec<(String, Vec<u8>)>) -> Self {
        found.sort_by_key(|(_, values)| values[0]);
        let class = |(name, values): (String, Vec<u8>)| Class { name, value: values[0], values };
        Self { classes: found.into_iter().map(class).collect(), ..Self::default() }
    }

    fn regions(found: Vec<(String, Vec<u8>)>, order: Option<&Value>) -> Result<Self, Unusable> {
        let regions: Vec<_> = found.into_iter().filter(|(_, values)| *values != [0]).collect();
        let Some(order) = order else {
            return Err(unusable(
                "regions (lists of values) without regions_class_order",
                "the value that a mask gets for each region, such as [1, 2, 3]",
                "Add \"regions_class_order\" to dataset.json: one value a region, in the order of labels.",
            ));
        };
        let bytes = |order: &Value| -> Option<Vec<u8>> {
            order.as_array()?.iter().map(|v| u8::try_from(number(v)?).ok()).collect()
        };
        let values = bytes(order).filter(|values| values.len() == regions.len());
        let values = values.ok_or_else(|| {
            unusable(
                format!("regions_class_order {order} for {} regions", regions.len()),
                "one whole number from 1 to 255 a region",
                "Correct regions_class_order in dataset.json.",
            )
        })?;
        let class =
            |((name, values), value): ((String, Vec<u8>), u8)| Class { name, values, value };
        let classes = regions.into_iter().zip(values).map(class).collect();
        Ok(Self { classes, regions: true, ..Self::default() })
    }

    /// Refuses what cannot be trained.
    pub fn check(&self) -> Result<(), Unusable> {
        const REMEDY: &str = "Correct labels in dataset.json.";
        if self.classes.len() > usize::from(IGNORED) {
            let found = format!("{} label values", self.classes.len());
            return Err(unusable(found, "at most 255, background among them", REMEDY));
        }
        if let Some(found) = self.classes.iter().find_map(|class| check_name(&class.name)) {
            return Err(unusable(format!("a label with the name {found}"), NAMES, REMEDY));
        }
        for (index, class) in self.classes.iter().enumerate() {
            if let Some(other) = self.classes[..index].iter().find(|c| c.name == class.name) {
                let found = format!("the name {:?} for two labels", other.name);
                return Err(unusable(found, "a name of its own for each label", REMEDY));
            }
        }
        if self.regions {
            let good = (1..=MAX_REGIONS).contains(&self.classes.len());
            let empty = self.classes.iter().any(|c| c.values.is_empty() || c.values.contains(&0));
            let zero = self.classes.iter().any(|class| class.value == 0);
            if !good || empty || zero {
                return Err(unusable(
                    format!("regions {}", self.described()),
                    "1 to 32 regions of values above 0, written as values above 0",
                    REMEDY,
                ));
            }
        } else {
            self.check_classes(REMEDY)?;
        }
        if self.indexed().len() > usize::from(IGNORED) {
            let found = format!("{} label values", self.indexed().len());
            return Err(unusable(found, "at most 255, background among them", REMEDY));
        }
        let meant: BTreeSet<u8> = self.classes.iter().flat_map(|c| &c.values).copied().collect();
        let mut others = self.ignore.iter().chain(&self.stray);
        match others.find(|value| meant.contains(value) || **value == 0) {
            Some(value) => {
                let found = format!("value {value} as a label and as one to ignore");
                Err(unusable(found, "a value of its own for what is ignored", REMEDY))
            }
            None => Ok(()),
        }
    }

    /// Refuses values of masks by which the masks could not be scored.
    pub fn check_written(&self) -> Result<(), Unusable> {
        let remedy = "Correct labels or regions_class_order in dataset.json.";
        let mut written = BTreeSet::new();
        for Class { name, values, value } in &self.classes {
            if !values.contains(value) {
                let found = format!("{name:?}, {values:?}, written as {value}");
                return Err(unusable(found, "one of its own values", remedy));
            }
            if !written.insert(*value) {
                let found = format!("{name:?} written as {value}, as another is");
                return Err(unusable(found, "a value of its own for each", remedy));
            }
        }
        Ok(())
    }

    fn check_classes(&self, remedy: &'static str) -> Result<(), Unusable> {
        if self.classes.first().is_none_or(|class| class.values.first() != Some(&0)) {
            let found = format!("labels {} without background", self.described());
            return Err(unusable(found, "background with the value 0", remedy));
        }
        if self.classes.len() < 2 {
            let found = format!("labels {}", self.described());
            return Err(unusable(found, "background and at least one label more", remedy));
        }
        let mut seen = BTreeSet::new();
        for class in &self.classes {
            if let Some(value) = class.values.iter().find(|value| !seen.insert(**value)) {
                let of = self.classes.iter().filter(|other| other.values.contains(value));
                let names: Vec<String> = of.map(|other| format!("{:?}", other.name)).collect();
                let found = format!("the value {value} for {}", names.join(" and "));
                return Err(unusable(found, "a value of its own for each label", remedy));
            }
            if class.values.is_empty() {
                let found = format!("{:?} without values", class.name);
                return Err(unusable(found, "at least one value a label", remedy));
            }
        }
        Ok(())
    }

    /// Names and values, for messages.
    pub fn described(&self) -> String {
        let each = self.classes.iter().map(|class| format!("{:?}: {:?}", class.name, class.values));
        let order = self.classes.iter().map(|class| class.value.to_string());
        let order = order.collect::<Vec<_>>().join(", ");
        let order = if self.regions { format!(" in the order {order}") } else { String::new() };
        each.collect::<Vec<_>>().join(", ") + &order
    }

    /// Outputs of the network.
    pub fn outputs(&self) -> usize {
        self.classes.len()
    }

    /// Names of what the network tells apart.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|class| class.name.clone()).collect()
    }

    /// The value that masks hold for each class or region.
    pub fn written(&self) -> Vec<u8> {
        self.classes.iter().map(|class| class.value).collect()
    }

    /// Values that label files may hold, ascending.
    pub fn known(&self) -> Vec<u8> {
        let meant = self.classes.iter().flat_map(|class| &class.values);
        let known: BTreeSet<u8> =
            meant.chain(&self.ignore).chain(&self.stray).chain(&[0]).copied().collect();
        known.into_iter().collect()
    }

    /// Label values in the order of their indices: of each class one, of regions all distinct ones; background is first.
    fn indexed(&self) -> Vec<Vec<u8>> {
        if !self.regions {
            return self.classes.iter().map(|class| class.values.clone()).collect();
        }
        let values: BTreeSet<u8> =
            self.classes.iter().flat_map(|class| &class.values).chain(&[0]).copied().collect();
        values.into_iter().map(|value| vec![value]).collect()
    }

    /// Turns values of label files, all of them known, into indices: of the class, or of the value where there are regions;
    /// [`IGNORED`] where nobody labelled.
    pub fn encode(&self, labels: &mut [u8]) {
        let mut table = [0u8; 256];
        for (values, index) in self.indexed().iter().zip(0..=u8::MAX) {
            values.iter().for_each(|value| table[usize::from(*value)] = index);
        }
        if let Some(value) = self.ignore {
            table[usize::from(value)] = IGNORED;
        }
        labels.iter_mut().for_each(|label| *label = table[usize::from(*label)]);
    }

    /// Turns values of label files into those that masks hold: of a class its one value, of what is ignored the value to ignore.
    /// Of regions only what means nothing changes.
    pub fn canonical(&self, labels: &mut [u8]) {
        let mut table: Vec<u8> = (0..=u8::MAX).collect();
        self.stray.iter().for_each(|value| table[usize::from(*value)] = 0);
        for class in self.classes.iter().filter(|_| !self.regions) {
            class.values.iter().for_each(|value| table[usize::from(*value)] = class.value);
        }
        labels.iter_mut().for_each(|label| *label = table[usize::from(*label)]);
    }

    /// Turns class indices into the values that masks hold.
    pub fn decode(&self, classes: &mut [u8]) {
        let value = |index: u8| self.classes.get(usize::from(index)).map_or(0, |c| c.value);
        let table: Vec<u8> = (0..=u8::MAX).map(value).collect();
        classes.iter_mut().for_each(|class| *class = table[usize::from(*class)]);
    }

    /// Regions of each label index, a bit each; none where classes exclude one another.
    pub fn region_bits(&self) -> Vec<u32> {
        if !self.regions {
            return Vec::new();
        }
        let bits = |values: &Vec<u8>| {
            let regions = self.classes.iter().enumerate();
            let has = regions.filter(|(_, region)| region.values.contains(&values[0]));
            has.map(|(index, _)| 1u32 << index).sum()
        };
        self.indexed().iter().map(bits).collect()
    }

    /// What is scored: every class but background, or every region.
    pub fn scored(&self) -> &[Class] {
        if self.regions { &self.classes } else { self.classes.get(1..).unwrap_or_default() }
    }

    /// Bits of the classes or regions that a case lacks the labels of, given their names in the dataset's own description:
    /// classes all of whose values are unlabelled, regions of that name or with such a value. An unknown name, or background, is given back.
    pub fn unlabelled(&self, own: &Self, names: &[String]) -> Result<[u32; 8], String> {
        let mut bits = [0u32; 8];
        let mut values = BTreeSet::new();
        for name in names {
            let class = own.scored().iter().find(|class| class.name == *name);
            values.extend(class.ok_or_else(|| name.clone())?.values.iter().copied());
        }
        for (index, class) in self.classes.iter().enumerate() {
            let lacks = match (self.regions, own.regions) {
                (true, true) => names.contains(&class.name),
                // of a region that is put together of classes, what lacks a part is no truth
                (true, false) => class.values.iter().any(|value| values.contains(value)),
                (false, _) => class.values.iter().all(|value| values.contains(value)),
            };
            if lacks {
                bits[index / 32] |= 1 << (index % 32);
            }
        }
        Ok(bits)
    }

    /// Counts label values as others: each class of `into` takes the values of those that it stands for, by position here.
    pub fn merged(&self, into: &[u8]) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        for (class, target) in self.classes.iter().zip(into) {
            match classes.get_mut(usize::from(*target)) {
                Some(merged) => merged.values.extend(&class.values),
                None => classes.push(class.clone()),
            }
        }
        Self { classes, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(labels: &str, order: Option<&str>) -> Result<Labels, Unusable> {
        let order = order.map(|order| serde_json::from_str::<Value>(order).unwrap());
        Labels::parse(&serde_json::from_str(labels).unwrap(), order.as_ref())
    }

    fn message(labels: &str, order: Option<&str>) -> String {
        let Unusable { found, expected, remedy } = parse(labels, order).unwrap_err();
        format!("{found}; {expected}; {remedy}")
    }

    #[test]
    fn both_forms_are_read_numbers_as_text_too() {
        let plain = Labels::plain(["background", "a", "b"]);
        for labels in [
            r#"{"0": "background", "1": "a", "2": "b"}"#,
            r#"{"background": 0, "b": 2, "a": 1}"#,
            r#"{"background": "0", "b": "2", "a": [1]}"#,
            r#"{"2": "b", "0": "background", "1": "a"}"#,
        ] {
            assert_eq!(parse(labels, None).unwrap(), plain, "{labels}");
        }
    }

    #[test]
    fn values_with_gaps_become_classes_and_return() {
        let labels = parse(r#"{"background": 0, "b": 5, "a": 2, "ignore": 9}"#, None).unwrap();
        assert_eq!((labels.outputs(), labels.ignore), (3, Some(9)));
        assert_eq!(labels.known(), [0, 2, 5, 9]);
        let mut voxels = vec![0, 2, 5, 9, 2];
        labels.encode(&mut voxels);
        assert_eq!(voxels, [0, 1, 2, IGNORED, 1]);
        let mut classes = vec![2, 1, 0];
        labels.decode(&mut classes);
        assert_eq!(classes, [5, 2, 0]);
        let mut values = vec![0, 2, 5, 9, 254];
        let labels = Labels { stray: vec![254], ..labels.merged(&[0, 1, 1]) };
        labels.canonical(&mut values);
        assert_eq!(values, [0, 2, 2, 9, 0]);
    }

    #[test]
    fn regions_keep_the_order_of_the_file() {
        let text = r#"{"background": 0, "whole": [1, 2, 7], "core": [2, 7], "an": 7, "ignore": 9}"#;
        let labels = parse(text, Some("[1, 2, 7]")).unwrap();
        assert!(labels.regions && labels.outputs() == 3);
        assert_eq!(labels.names(), ["whole", "core", "an"]);
        assert_eq!(labels.region_bits(), [0, 0b001, 0b011, 0b111]);
        let mut voxels = vec![7, 0, 2, 9, 1];
        labels.encode(&mut voxels);
        assert_eq!(voxels, [3, 0, 2, IGNORED, 1]);
        assert_eq!(labels.unlabelled(&labels, &["core".into()]).unwrap()[0], 0b010);
    }

    #[test]
    fn what_cannot_be_used_names_the_entry() {
        let regions = r#"{"background": 0, "whole": [1, 2], "core": 2}"#;
        assert!(message(regions, None).contains("without regions_class_order"));
        assert!(message(regions, Some("[1]")).contains("[1] for 2 regions"));
        for (order, part) in [("[10, 2]", "written as 10"), ("[2, 2]", "as another is")] {
            let labels = parse(regions, Some(order)).unwrap();
            assert!(labels.check_written().unwrap_err().found.contains(part));
        }
        let all = (0..256).map(|value| format!("\"l{value}\": {value}"));
        let all = format!("{{{}}}", all.collect::<Vec<_>>().join(", "));
        assert!(message(&all, None).contains("256 label values"));
        for (labels, part) in [
            (r#"{"background": 0, "tumour": "one"}"#, r#""tumour": "one""#),
            (r#"{"background": 0, "tumour": 500}"#, r#""tumour": 500"#),
            (r#"{"background": 0, "tumour": [1, "x"]}"#, r#""tumour": [1,"x"]"#),
            (r#"{"background": 0, "tumour": []}"#, r#""tumour": []"#),
            (r#"{"a": 1, "b": 2}"#, "without background"),
            (r#"{"background": 0}"#, "labels \"background\""),
            (r#"{"background": 0, "a": 1, "b": 1}"#, r#"value 1 for "a" and "b""#),
            (
                r#"{"background": 0, "a": 1, "ignore": 1}"#,
                "value 1 as a label and as one to ignore",
            ),
            (r#"{"0": "background", "1": "a", "2": "a"}"#, r#"the name "a" for two labels"#),
            (r#"{"background": -1, "a": 1}"#, r#""background": -1"#),
            (r#"{"background": 0, "a": -1.0}"#, r#""a": -1.0"#),
        ] {
            assert!(message(labels, None).contains(part), "{labels}: {}", message(labels, None));
        }
    }

    #[test]
    fn only_the_labels_of_a_file_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            LabelDescription::read(&path).map(|d| d.labels).map_err(|e| e.to_string())
        };
        let text = "\u{feff}{\"labels\": {\"0\": \"background\", \"1\": \"a\"}}";
        assert_eq!(read(text), Ok(Labels::plain(["background", "a"])));
        let regions = r#"{"labels": {"background": 0, "all": [1, 2]}, "regions_class_order": [1]}"#;
        assert_eq!(read(regions).unwrap().known(), [0, 1, 2]);
        for (text, part) in [
            ("{", "EOF"),
            (r#"{"name": "A"}"#, "found no labels"),
            (r#"{"labels": {"background": 0}}"#, "labels \"background\""),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(part) && message.contains("dataset.json"), "{message}");
        }
    }

    #[test]
    fn merged_classes_are_unlabelled_together_only() {
        let own = parse(r#"{"background": 0, "liver": 1, "tumour": 4}"#, None).unwrap();
        let merged = own.merged(&[0, 1, 1]);
        assert_eq!(merged.names(), ["background", "liver"]);
        assert_eq!(
            (merged.classes[1].values.as_slice(), merged.classes[1].value),
            (&[1, 4][..], 1)
        );
        let tumour = ["tumour".to_string()];
        assert_eq!(own.unlabelled(&own, &tumour), Ok([0b100, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(merged.unlabelled(&own, &tumour), Ok([0; 8]));
        assert_eq!(own.unlabelled(&own, &["background".into()]), Err("background".into()));
    }
}
