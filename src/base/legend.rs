//! Words on a picture that say what its colours mean.

use image::RgbImage;

use super::canvas::{fill, text, text_width};

const ROW: u32 = 24;
/// Rows at most; what does not fit is counted.
const ROWS: usize = 4;
/// Letters of an entry at most.
const LETTERS: usize = 28;
/// Width of a mark and of what is left free behind it and behind its text.
const MARK: u32 = 22;
const GAP: u32 = 8;
const SPACE: u32 = 22;

/// A word of a legend, with a line of its colour and thickness before it where it stands for one.
pub struct Entry {
    mark: Option<([u8; 3], u32)>,
    text: String,
}

impl Entry {
    /// A colour and what it means; the line is so many pixels thick.
    pub fn new(text: &str, colour: [u8; 3], thickness: u32) -> Self {
        Self { mark: Some((colour, thickness)), text: short(text) }
    }

    /// A word without a colour.
    pub fn word(text: &str) -> Self {
        Self { mark: None, text: short(text) }
    }

    fn width(&self) -> u32 {
        let mark = if self.mark.is_some() { MARK + GAP } else { 0 };
        mark + text_width(&self.text)
    }
}

/// Entries in rows, and a caption at the lower right.
pub struct Legend {
    rows: Vec<Vec<Entry>>,
    caption: String,
    width: u32,
}

impl Legend {
    /// Of a width in pixels; the caption may be empty.
    pub fn new(entries: Vec<Entry>, caption: &str, width: u32) -> Self {
        let (mut rows, caption) = (flow(entries, width), fitted(caption, width));
        let last = rows.last().map_or(0, |row| end(row));
        if !caption.is_empty() && last + SPACE + text_width(&caption) > width {
            rows.push(Vec::new());
        }
        Self { rows, caption, width }
    }

    /// Pixels that it takes down.
    pub fn height(&self) -> u32 {
        self.rows.len() as u32 * ROW
    }

    /// Draws it, its upper left corner at a place, in one colour and the caption in another.
    pub fn draw(&self, paper: &mut RgbImage, (left, top): (u32, u32), [ink, faint]: [[u8; 3]; 2]) {
        for (row, y) in self.rows.iter().zip((top..).step_by(ROW as usize)) {
            let mut x = left;
            for entry in row {
                if let Some((colour, thickness)) = entry.mark {
                    fill(paper, (x, y + 7 - thickness.min(14) / 2), (MARK, thickness), colour);
                    x += MARK + GAP;
                }
                text(paper, &entry.text, (x, y), ink);
                x += text_width(&entry.text) + SPACE;
            }
        }
        let x = (left + self.width).saturating_sub(text_width(&self.caption));
        text(paper, &self.caption, (x, (top + self.height()).saturating_sub(ROW)), faint);
    }
}

/// Where a row ends.
fn end(row: &[Entry]) -> u32 {
    row.iter().map(|entry| entry.width() + SPACE).sum::<u32>().saturating_sub(SPACE)
}

/// Entries in rows of a width; those beyond the last row are counted at its end.
fn flow(entries: Vec<Entry>, width: u32) -> Vec<Vec<Entry>> {
    let mut rows: Vec<Vec<Entry>> = vec![Vec::new()];
    let count = entries.len();
    for (index, entry) in entries.into_iter().enumerate() {
        let more = || Entry::word(&format!("and {} more", count - index));
        let last = rows.len() == ROWS;
        let room = width.saturating_sub(if last { more().width() + SPACE } else { 0 });
        let Some(row) = rows.last_mut() else { break };
        let fits = row.is_empty() || end(row) + SPACE + entry.width() <= room;
        match (fits, last) {
            (true, _) => row.push(entry),
            (false, false) => rows.push(vec![entry]),
            (false, true) => {
                row.push(more());
                break;
            }
        }
    }
    rows
}

/// The end of a text, which says more of a path than its beginning, where all of it is too wide.
fn fitted(caption: &str, width: u32) -> String {
    let letters = (width / 12).max(4) as usize;
    let count = caption.chars().count();
    match count > letters {
        true => format!("..{}", caption.chars().skip(count + 2 - letters).collect::<String>()),
        false => caption.to_string(),
    }
}

fn short(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => format!("{}..", name.chars().take(LETTERS - 2).collect::<String>()),
        false => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legend_wraps_and_counts_what_does_not_fit() {
        let entries = |count: usize| -> Vec<Entry> {
            (0..count).map(|i| Entry::new(&format!("class {i}"), [9; 3], 2)).collect()
        };
        let rows = flow(entries(3), 320);
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let rows = flow(entries(200), 400);
        assert_eq!(rows.len(), ROWS);
        assert!(rows.iter().all(|row| end(row) <= 400));
        let marked = |row: &Vec<Entry>| row.iter().filter(|entry| entry.mark.is_some()).count();
        let shown: usize = rows.iter().map(marked).sum();
        assert_eq!(rows[ROWS - 1].last().unwrap().text, format!("and {} more", 200 - shown));
        let legend = Legend::new(entries(2), &"path/".repeat(100), 400);
        assert_eq!(legend.height(), 2 * ROW);
        assert!(text_width(&legend.caption) <= 400 && legend.caption.starts_with(".."));
    }
}
