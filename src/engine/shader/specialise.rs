//! Textual specialisation: `const` lines replaced by name, bindings that are stored otherwise rewritten, marked loops unrolled.

use std::collections::HashMap;

use super::key::KernelKey;
use super::{expand, storage};
use crate::base::{Error, Result};

const MARK: &str = "// unroll";

const COOPERATIVE: &str = "enable wgpu_cooperative_matrix;";

/// The first line of a kernel that reckons in f16.
pub(super) const HALVES: &str = "enable f16;";

/// The kernel's WGSL: imports and sections put in, tiles set, factors declared, accesses to bindings rewritten, loops below a
/// `// unroll` line written out so that indices are constants.
pub fn specialise(key: &KernelKey) -> Result<String> {
    let text = factors(set_consts(key, &expand::expand(key)?)?);
    let text = storage::store(key, text)?;
    let consts = read_consts(&text);
    unroll(key.file, &text, &consts)
}

/// `const NAME: u32 = 4u;` as (name, value).
fn parse_const(line: &str) -> Option<(&str, u32)> {
    let (name, rest) = line.trim().strip_prefix("const ")?.split_once(':')?;
    let value = rest.trim().strip_prefix("u32 = ")?.strip_suffix("u;")?;
    Some((name.trim(), value.parse().ok()?))
}

fn read_consts(text: &str) -> HashMap<&str, u32> {
    text.lines().filter_map(parse_const).collect()
}

fn set_consts(key: &KernelKey, text: &str) -> Result<String> {
    let mut values: HashMap<&str, u32> = key.consts.iter().copied().collect();
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(
            match parse_const(line).and_then(|(name, _)| Some((name, values.remove(name)?))) {
                Some((name, value)) => format!("const {name}: u32 = {value}u;"),
                None => line.to_string(),
            },
        );
    }
    match values.keys().next() {
        Some(name) => {
            Err(Error::shader(key.file, format!("there is no line `const {name}: u32 = …u;`")))
        }
        None => Ok(lines.join("\n")),
    }
}

/// Factors as SIDE and BITS say, of cooperative matrices and others: `alias` lines take no constants.
fn factors(text: String) -> String {
    let consts = read_consts(&text);
    let (side, bits) = (consts.get("SIDE").copied(), consts.get("BITS").copied());
    let text = match side.filter(|_| text.contains(COOPERATIVE)) {
        Some(side) => text.replace("= coop_mat8x8<", &format!("= coop_mat{side}x{side}<")),
        None => text,
    };
    if bits != Some(16) {
        return text;
    }
    let text = text.replace("alias Element = f32;", "alias Element = f16;");
    let text = ["A", "B"].iter().fold(text, |text, role| {
        text.replace(&format!("<f32, {role}>;"), &format!("<f16, {role}>;"))
    });
    format!("{HALVES}\n{text}")
}

/// A marked loop: its variable, bound and body.
struct Loop<'a> {
    variable: &'a str,
    bound: u32,
    body: &'a str,
    rest: &'a str,
}

fn unroll(file: &str, text: &str, consts: &HashMap<&str, u32>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let marked = parse_loop(&rest[at + MARK.len()..], consts)
            .map_err(|message| Error::shader(file, message))?;
        let body = unroll(file, marked.body, consts)?;
        for index in 0..marked.bound {
            out.push_str(&format!("{{ const {} = {index}u; {body} }}\n", marked.variable));
        }
        rest = marked.rest;
    }
    out.push_str(rest);
    Ok(out)
}

/// Parses `for (var j = 0u; j < BOUND; j++) { … }`.
fn parse_loop<'a>(
    text: &'a str,
    consts: &HashMap<&str, u32>,
) -> std::result::Result<Loop<'a>, String> {
    let head_error = || {
        let line = text.trim_start().lines().next().unwrap_or_default();
        format!("an unrolled loop reads `for (var j = 0u; j < BOUND; j++) {{`, found `{line}`")
    };
    let start = text.trim_start().strip_prefix("for (var ").ok_or_else(head_error)?;
    let (variable, start) = start.split_once(" = 0u; ").ok_or_else(head_error)?;
    let start = start.strip_prefix(variable).ok_or_else(head_error)?;
    let start = start.strip_prefix(" < ").ok_or_else(head_error)?;
    let (bound, start) = start.split_once("; ").ok_or_else(head_error)?;
    let start = start.strip_prefix(variable).ok_or_else(head_error)?;
    let start = start.strip_prefix("++) {").ok_or_else(head_error)?;
    let bound = match bound.strip_suffix('u').and_then(|n| n.parse().ok()) {
        Some(number) => number,
        None => *consts.get(bound).ok_or_else(|| format!("loop bound {bound} is no const"))?,
    };
    let mut depth = 1;
    for (at, character) in start.char_indices() {
        depth += match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            let body = &start[..at];
            if body.contains("break;") || body.contains("continue;") {
                return Err("an unrolled loop has break or continue".into());
            }
            return Ok(Loop { variable, bound, body, rest: &start[at + 1..] });
        }
    }
    Err("an unrolled loop has no end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_unroll_with_constant_indices() {
        let text = "const N: u32 = 2u;\n// unroll\nfor (var i = 0u; i < N; i++) {\n  // unroll\n  for (var j = 0u; j < 2u; j++) { a[i][j] = 0.0; }\n}\nend";
        let out = unroll("t", text, &read_consts(text)).unwrap();
        assert_eq!(out.matches("a[i][j]").count(), 4);
        assert_eq!(out.matches("const i = 1u;").count(), 1);
        assert!(out.ends_with("end"));
    }

    #[test]
    fn matrices_follow_side_and_bits() {
        let key = || KernelKey::new("pointwise_coop.wgsl");
        let aliases = |key: KernelKey| -> Vec<String> {
            let text = specialise(&key).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("alias"));
            lines.map(|line| line.trim_start_matches("alias ").to_string()).collect()
        };
        let expected = |side: &str, element: &str| {
            [
                format!("Element = {element};"),
                format!("Left = coop_mat{side}<{element}, A>;"),
                format!("Right = coop_mat{side}<{element}, B>;"),
                format!("Sum = coop_mat{side}<f32, C>;"),
            ]
        };
        assert_eq!(aliases(key()), expected("8x8", "f32"));
        assert_eq!(aliases(key().tile("SIDE", 16)), expected("16x16", "f32"));
        let halves = key().tile("SIDE", 16).tile("BITS", 16);
        assert_eq!(aliases(halves.clone()), expected("16x16", "f16"));
        assert!(specialise(&halves).unwrap().starts_with("enable f16;\n"));
        assert!(!specialise(&key()).unwrap().contains("enable f16;"));
    }

    #[test]
    fn staged_factors_are_halves_where_bits_say_so() {
        let key = || KernelKey::new("conv_staged.wgsl");
        let text = specialise(&key().tile("BITS", 16)).unwrap();
        assert!(text.starts_with("enable f16;\n") && text.contains("alias Element = f16;"));
        let text = specialise(&key()).unwrap();
        assert!(!text.contains("f16;") && text.contains("alias Element = f32;"));
    }

    #[test]
    fn bad_loops_and_unknown_consts_are_refused() {
        let none = HashMap::new();
        assert!(unroll("t", "// unroll\nwhile (x) {}", &none).is_err());
        assert!(unroll("t", "// unroll\nfor (var i = 0u; i < N; i++) { }", &none).is_err());
        assert!(unroll("t", "// unroll\nfor (var i = 0u; i < 2u; i++) { break; }", &none).is_err());
        assert!(specialise(&KernelKey::new("pointwise.wgsl").tile("NOPE", 1)).is_err());
    }
}
