//! Tables that a reader may sort.

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its title.
    pub name: String,
    /// Whether it holds numbers, which stand to the right.
    pub number: bool,
}

/// A cell: what is read, and the number by which rows are sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The number; empty for text, and for what has none, which comes last.
    pub key: String,
    /// Bad, middling or good, as the style has it; empty for none of them.
    pub level: &'static str,
}

impl Cell {
    /// A word.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A number to some digits; a dash for NaN.
    pub fn number(value: f64, digits: usize) -> Self {
        match value.is_finite() {
            true => Self { text: format!("{value:.digits$}"), key: value.to_string(), level: "" },
            false => Self::text("–"),
        }
    }

    /// A score from 0 to 1, coloured by how good it is.
    pub fn share(value: f64) -> Self {
        let level = match value {
            ..0.5 => "bad",
            0.5..0.75 => "middling",
            _ => "",
        };
        Self { level, ..Self::number(value, 3) }
    }

    /// A count, with spaces between thousands.
    pub fn count(value: u64) -> Self {
        Self { text: grouped(value), key: value.to_string(), level: "" }
    }
}

/// A row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// The place on the page that its first cell leads to; may be empty.
    pub link: String,
    /// A cell a column.
    pub cells: Vec<Cell>,
}

/// Rows under titles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The titles.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// Without rows; the first column holds words and the others numbers.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        let columns = columns.into_iter().enumerate();
        let columns = columns.map(|(i, name)| Column { name: name.into(), number: i > 0 });
        Self { columns: columns.collect(), rows: Vec::new() }
    }
}

/// A count with narrow spaces between thousands.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_well_and_sort_by_their_numbers() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(12), "12");
        let cell = Cell::share(0.41234);
        assert_eq!(
            (cell.text.as_str(), cell.key.as_str(), cell.level),
            ("0.412", "0.41234", "bad")
        );
        assert_eq!((Cell::share(0.9).level, Cell::share(0.6).level), ("", "middling"));
        let nothing = Cell::share(f64::NAN);
        assert_eq!((nothing.text.as_str(), nothing.key.as_str(), nothing.level), ("–", "", ""));
    }
}
