//! Commands as a shell takes them.

/// The command that this program was called with.
pub(super) fn typed() -> String {
    let words = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
    ["u2seg".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=\\".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in
            [("runs/a-1", "runs/a-1"), ("my runs", "'my runs'"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(super::quoted(word), expected);
        }
    }
}
