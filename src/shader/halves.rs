//! Textual rewriting of a shader so that some of its bindings are stored as halves.
//!
//! A binding of `vec4<f32>` becomes one of `vec2<u32>`, two f16 a word. Reads `NAME[i]` become `half_load(NAME[i])`, and
//! statements `NAME[i] = value;` become `NAME[i] = half_store(value);`: arithmetic stays in f32, and no device feature is needed.

use super::KernelKey;
use crate::error::{Error, Result};

/// What the rewritten text calls. Beyond the range of f16 the stored value is infinite, and so is a NaN: both are found by
/// their bits, since implementations may assume that they do not occur, and `pack2x16float` says nothing of them.
const FUNCTIONS: &str = "
fn half_load(v: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn half_store(v: vec4<f32>) -> vec2<u32> {
  let bits = bitcast<vec4<u32>>(v);
  let beyond = (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x477fe000u);
  let inside = select(v, vec4<f32>(0.0), beyond);
  let infinite = select(vec4<u32>(0u), ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | vec4<u32>(0x7c00u), beyond);
  return vec2<u32>(pack2x16float(inside.xy) | infinite.x | (infinite.y << 16u), pack2x16float(inside.zw) | infinite.z | (infinite.w << 16u));
}
";

/// The text with the key's half bindings rewritten.
pub(super) fn store_halves(key: &KernelKey, text: String) -> Result<String> {
    if key.halves.is_empty() {
        return Ok(text);
    }
    let fail = |message: String| Error::shader(key.file, message);
    let mut lines = Vec::new();
    let mut found = 0;
    for line in text.lines() {
        lines.push(match declaration(line, &key.halves) {
            Some(line) => {
                found += 1;
                line
            }
            None => line.to_string(),
        });
    }
    if found != key.halves.len() {
        let names = key.halves.join(", ");
        return Err(fail(format!("not each of {names} is declared as array<vec4<f32>>")));
    }
    let mut out = rewrite(&lines.join("\n"), &key.halves).map_err(fail)?;
    out.push_str(FUNCTIONS);
    Ok(out)
}

const OLD: &str = ": array<vec4<f32>>;";
const NEW: &str = ": array<vec2<u32>>;";

/// A line that declares one of the bindings, with its new type.
fn declaration(line: &str, names: &[&'static str]) -> Option<String> {
    let head = line.strip_suffix(OLD)?;
    let name = head.trim_start().strip_prefix("@group(0)")?.rsplit(' ').next()?;
    names.contains(&name).then(|| format!("{head}{NEW}"))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// End of the word that starts at `at`.
fn word_end(text: &str, at: usize) -> usize {
    text[at..].bytes().position(|b| !is_word(b)).map_or(text.len(), |len| at + len)
}

/// Reads and writes of `names` in `text`, rewritten.
fn rewrite(text: &str, names: &[&'static str]) -> std::result::Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        if text[at..].starts_with("//") {
            at = text[at..].find('\n').map_or(text.len(), |line| at + line);
            continue;
        }
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let end = word_end(text, at);
        let name = &text[at..end];
        let member = at > 0 && bytes[at - 1] == b'.';
        if member || !names.contains(&name) {
            at = end;
            continue;
        }
        if declares(text, end) {
            at = end;
            continue;
        }
        let access = access(text, at, end, names)?;
        out.push_str(&text[copied..at]);
        out.push_str(&access.text);
        (at, copied) = (access.end, access.end);
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

/// Whether the binding itself is declared here, not a local of its name.
fn declares(text: &str, end: usize) -> bool {
    text[end..].starts_with(NEW)
}

struct Access {
    text: String,
    end: usize,
}

/// Rewrites `NAME[…]`, with the value if it is stored to.
fn access(
    text: &str,
    start: usize,
    name_end: usize,
    names: &[&'static str],
) -> std::result::Result<Access, String> {
    let line = || text[start..].lines().next().unwrap_or_default().to_string();
    let unknown = |what: &str| Err(format!("{what} of a binding stored as halves: `{}`", line()));
    let name = &text[start..name_end];
    if !text[name_end..].starts_with('[') {
        return unknown("neither read nor write");
    }
    let close = matching(text, name_end).ok_or_else(|| format!("no end of `{}`", line()))?;
    let index = rewrite(&text[name_end + 1..close], names)?;
    let target = format!("{name}[{index}]");
    // what follows, beyond a component
    let mut after = close + 1;
    loop {
        let rest = &text[after..];
        if rest.starts_with('[') {
            after = matching(text, after).ok_or_else(|| format!("no end of `{}`", line()))? + 1;
        } else if rest.starts_with('.') {
            after = word_end(text, after + 1);
        } else {
            break;
        }
    }
    match assignment(text[after..].trim_start()) {
        Assignment::None => Ok(Access { text: format!("half_load({target})"), end: close + 1 }),
        Assignment::Compound => unknown("compound assignment"),
        Assignment::Plain if after != close + 1 => unknown("assignment of a component"),
        Assignment::Plain => {
            let equals = text[after..].find('=').map_or(text.len(), |n| after + n + 1);
            let Some(length) = text[equals..].find(';') else {
                return Err(format!("no end of `{}`", line()));
            };
            let value = rewrite(text[equals..equals + length].trim(), names)?;
            let text = format!("{target} = half_store({value})");
            Ok(Access { text, end: equals + length })
        }
    }
}

enum Assignment {
    None,
    Plain,
    Compound,
}

fn assignment(rest: &str) -> Assignment {
    let compound = ["+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", "++", "--"];
    if compound.iter().any(|operator| rest.starts_with(operator)) {
        Assignment::Compound
    } else if rest.starts_with('=') && !rest.starts_with("==") {
        Assignment::Plain
    } else {
        Assignment::None
    }
}

/// The bracket that closes the one at `open`.
fn matching(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_rewritten() {
        let text = "let y = x[i + x[j].x] * params.x; // x[0]\nout[at] = y + out[at];\nif (x[i].y >= 1.0) { out[2] = x[1]; }";
        let expected = "let y = half_load(x[i + half_load(x[j]).x]) * params.x; // x[0]\nout[at] = half_store(y + half_load(out[at]));\nif (half_load(x[i]).y >= 1.0) { out[2] = half_store(half_load(x[1])); }";
        assert_eq!(rewrite(text, &["x", "out"]).unwrap(), expected);
        assert_eq!(rewrite("src[i] = x[i];", &["x"]).unwrap(), "src[i] = half_load(x[i]);");
    }

    #[test]
    fn other_forms_are_refused() {
        for text in
            ["x[i] += y;", "x[i].x = 1.0;", "x[i][j] = 1.0;", "let p = &x;", "x[i", "x[i]++;"]
        {
            assert!(rewrite(text, &["x"]).is_err(), "{text}");
        }
        assert!(
            store_halves(&KernelKey::new("add.wgsl").halves(["params"]), String::new()).is_err()
        );
    }
}
