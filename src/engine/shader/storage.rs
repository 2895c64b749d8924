//! Textual rewriting of how a shader reads and writes its bindings of `vec4<f32>`.
//!
//! One that is stored as halves becomes `vec2<u32>`, two f16 a word. Reads `NAME[i]` become `half_load(NAME[i])`, and
//! statements `NAME[i] = value;` become `NAME[i] = half_store(value);`: arithmetic stays in f32, and no device feature is needed.
//!
//! With wide words, which need 64-bit integers, the others become `vec2<u64>` through `wide_load` and `wide_store`, and those
//! of halves `u64`: the same bits in half as many words. llvmpipe loops over the lanes for each word of a load or store.

use std::collections::HashMap;

use super::key::KernelKey;
use crate::base::{Error, Result};

/// How a binding lies in memory, and what the rewritten text calls to read and write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Halves,
    WideHalves,
    Wide,
}

impl Storage {
    fn of(key: &KernelKey, name: &str) -> Option<Self> {
        match (key.halves.contains(&name), key.wide) {
            (true, false) => Some(Self::Halves),
            (true, true) => Some(Self::WideHalves),
            (false, true) => Some(Self::Wide),
            (false, false) => None,
        }
    }

    fn dtype(self) -> &'static str {
        match self {
            Self::Halves => "vec2<u32>",
            Self::WideHalves => "u64",
            Self::Wide => "vec2<u64>",
        }
    }

    fn functions(self) -> [&'static str; 2] {
        match self {
            Self::Halves => ["half_load", "half_store"],
            Self::WideHalves => ["wide_half_load", "wide_half_store"],
            Self::Wide => ["wide_load", "wide_store"],
        }
    }
}

/// Beyond the range of f16 the stored value is infinite, and so is a NaN: both are found by their bits, since
/// implementations may assume that they do not occur, and `pack2x16float` says nothing of them.
const HALF_FUNCTIONS: &str = "
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

const WIDE_HALF_FUNCTIONS: &str = "
fn wide_half_load(v: u64) -> vec4<f32> {
  return half_load(vec2<u32>(u32(v), u32(v >> 32u)));
}

fn wide_half_store(v: vec4<f32>) -> u64 {
  let halves = half_store(v);
  return u64(halves.x) | (u64(halves.y) << 32u);
}
";

const WIDE_FUNCTIONS: &str = "
fn wide_load(v: vec2<u64>) -> vec4<f32> {
  let low = vec2<u32>(v);
  let high = vec2<u32>(v >> vec2<u32>(32u));
  return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}

fn wide_store(v: vec4<f32>) -> vec2<u64> {
  let bits = bitcast<vec4<u32>>(v);
  return vec2<u64>(bits.xz) | (vec2<u64>(bits.yw) << vec2<u32>(32u));
}
";

/// The bindings that are rewritten.
type Bindings<'a> = HashMap<&'a str, Storage>;

/// The text with the bindings that the key stores otherwise rewritten.
pub(super) fn store(key: &KernelKey, text: String) -> Result<String> {
    if key.halves.is_empty() && !key.wide {
        return Ok(text);
    }
    let fail = |message: String| Error::shader(key.file, message);
    let mut lines = Vec::new();
    let mut bindings = Bindings::new();
    for line in text.lines() {
        lines.push(match declaration(line, key) {
            Some((name, storage, line)) => {
                bindings.insert(name, storage);
                line
            }
            None => line.to_string(),
        });
    }
    if !key.halves.iter().all(|name| bindings.contains_key(name)) {
        let names = key.halves.join(", ");
        return Err(fail(format!("not each of {names} is declared as array<vec4<f32>>")));
    }
    let mut out = rewrite(&lines.join("\n"), &bindings).map_err(fail)?;
    let used = |storage| bindings.values().any(|other| *other == storage);
    for (needed, functions) in [
        (!key.halves.is_empty(), HALF_FUNCTIONS),
        (used(Storage::WideHalves), WIDE_HALF_FUNCTIONS),
        (used(Storage::Wide), WIDE_FUNCTIONS),
    ] {
        if needed {
            out.push_str(functions);
        }
    }
    Ok(out)
}

/// A line that declares one of the bindings: its name, and with its new type.
fn declaration<'a>(line: &'a str, key: &KernelKey) -> Option<(&'a str, Storage, String)> {
    let head = line.strip_suffix(": array<vec4<f32>>;")?;
    let name = head.trim_start().strip_prefix("@group(0)")?.rsplit(' ').next()?;
    let storage = Storage::of(key, name)?;
    Some((name, storage, format!("{head}: array<{}>;", storage.dtype())))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// End of the word that starts at `at`.
fn word_end(text: &str, at: usize) -> usize {
    text[at..].bytes().position(|b| !is_word(b)).map_or(text.len(), |len| at + len)
}

/// Reads and writes of `names` in `text`, rewritten.
fn rewrite(text: &str, bindings: &Bindings) -> std::result::Result<String, String> {
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
        let storage =
            bindings.get(name).filter(|storage| !member && !declares(text, end, **storage));
        let Some(storage) = storage else {
            at = end;
            continue;
        };
        let access = access(text, (at, end), *storage, bindings)?;
        out.push_str(&text[copied..at]);
        out.push_str(&access.text);
        (at, copied) = (access.end, access.end);
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

/// Whether the binding itself is declared here, not a local of its name.
fn declares(text: &str, end: usize, storage: Storage) -> bool {
    let rest = text[end..].strip_prefix(": array<");
    rest.and_then(|rest| rest.strip_prefix(storage.dtype()))
        .is_some_and(|rest| rest.starts_with(">;"))
}

struct Access {
    text: String,
    end: usize,
}

/// Rewrites `NAME[…]`, with the value if it is stored to.
fn access(
    text: &str,
    (start, name_end): (usize, usize),
    storage: Storage,
    bindings: &Bindings,
) -> std::result::Result<Access, String> {
    let line = || text[start..].lines().next().unwrap_or_default().to_string();
    let unknown = |what: &str| Err(format!("{what} of a binding that is rewritten: `{}`", line()));
    let name = &text[start..name_end];
    if !text[name_end..].starts_with('[') {
        return unknown("neither read nor write");
    }
    let close = matching(text, name_end).ok_or_else(|| format!("no end of `{}`", line()))?;
    let index = rewrite(&text[name_end + 1..close], bindings)?;
    let target = format!("{name}[{index}]");
    let [load, store] = storage.functions();
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
        Assignment::None => Ok(Access { text: format!("{load}({target})"), end: close + 1 }),
        Assignment::Compound => unknown("compound assignment"),
        Assignment::Plain if after != close + 1 => unknown("assignment of a component"),
        Assignment::Plain => {
            let equals = text[after..].find('=').map_or(text.len(), |n| after + n + 1);
            let Some(length) = text[equals..].find(';') else {
                return Err(format!("no end of `{}`", line()));
            };
            let value = rewrite(text[equals..equals + length].trim(), bindings)?;
            let text = format!("{target} = {store}({value})");
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

    fn halves(names: &[&'static str]) -> Bindings<'static> {
        names.iter().map(|name| (*name, Storage::Halves)).collect()
    }

    #[test]
    fn wide_words_are_used_for_all_bindings() {
        let text = "@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;\n@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;\nout[i] = x[i];";
        let mut key = KernelKey::new("add.wgsl").halves(["out"]);
        key.wide = true;
        let wide = store(&key, text.into()).unwrap();
        assert!(wide.contains("x: array<vec2<u64>>;") && wide.contains("out: array<u64>;"));
        assert!(wide.contains("out[i] = wide_half_store(wide_load(x[i]));"));
        for function in ["half_load", "half_store", "wide_load", "wide_half_store"] {
            assert_eq!(wide.matches(&format!("fn {function}(")).count(), 1, "{function}");
        }
    }

    #[test]
    fn reads_and_writes_are_rewritten() {
        let text = "let y = x[i + x[j].x] * params.x; // x[0]\nout[at] = y + out[at];\nif (x[i].y >= 1.0) { out[2] = x[1]; }";
        let expected = "let y = half_load(x[i + half_load(x[j]).x]) * params.x; // x[0]\nout[at] = half_store(y + half_load(out[at]));\nif (half_load(x[i]).y >= 1.0) { out[2] = half_store(half_load(x[1])); }";
        assert_eq!(rewrite(text, &halves(&["x", "out"])).unwrap(), expected);
        assert_eq!(
            rewrite("src[i] = x[i];", &halves(&["x"])).unwrap(),
            "src[i] = half_load(x[i]);"
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in
            ["x[i] += y;", "x[i].x = 1.0;", "x[i][j] = 1.0;", "let p = &x;", "x[i", "x[i]++;"]
        {
            assert!(rewrite(text, &halves(&["x"])).is_err(), "{text}");
        }
        assert!(store(&KernelKey::new("add.wgsl").halves(["params"]), String::new()).is_err());
    }
}
