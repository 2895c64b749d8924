//! Numbers as people write them.

pub use crate::report::{axes, duration, mm};

/// The axes that hold, by their letters.
pub fn letters(axes: [bool; 3]) -> String {
    let letters = ["D", "H", "W"].into_iter().zip(axes);
    letters.filter_map(|(letter, holds)| holds.then_some(letter)).collect::<Vec<_>>().join(", ")
}

/// A number with its noun: 1 case, 2,000 steps.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// A whole number with commas between thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = groups.filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Words one after another, with a comma between them.
pub fn list<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().into()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(1, "case"), "1 case");
        assert_eq!(count(0, "case"), "0 cases");
        assert_eq!(count(12_345, "step"), "12,345 steps");
        assert_eq!(axes([16, 32, 8]), "16×32×8");
        assert_eq!([0.8, 5.0, 0.78125].map(mm), ["0.8", "5", "0.78"]);
        assert_eq!([0.4, 75.0, 3725.0].map(duration), ["0 s", "1 min 15 s", "1 h 2 min"]);
        assert_eq!(list(["a", "b"]), "a, b");
        assert_eq!(letters([true, false, true]), "D, W");
    }
}
