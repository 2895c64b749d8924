//! What a kernel needs beyond the portable core, as lines of its header say, and its text as the standard has it.

use super::key::KernelKey;
use super::specialise::{HALVES, specialise};
use crate::base::{Error, Result};

const MARK: &str = "// needs ";

/// What an adapter must offer beyond the portable core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Subgroup operations.
    pub subgroups: bool,
    /// Cooperative matrices, an extension of naga's.
    pub cooperative: bool,
    /// Arithmetic in f16.
    pub halves: bool,
}

/// What a kernel needs: lines `// needs subgroups` and `// needs cooperative matrices`, and `enable f16;` before all others.
pub fn needs(key: &KernelKey) -> Result<Needs> {
    read(key.file, &specialise(key)?)
}

pub(super) fn read(file: &str, text: &str) -> Result<Needs> {
    let mut needs = Needs { halves: text.starts_with(HALVES), ..Needs::default() };
    for what in text.lines().filter_map(|line| line.strip_prefix(MARK)) {
        match what {
            "subgroups" => needs.subgroups = true,
            "cooperative matrices" => needs.cooperative = true,
            _ => return Err(Error::shader(file, format!("`{MARK}{what}` is not known"))),
        }
    }
    Ok(needs)
}

/// The kernel's text for compilers that follow the standard, such as Tint. It differs from what naga gets in one line: naga has
/// subgroup operations without `enable subgroups;`, which it does not know yet, and the standard wants it first. Words are never
/// wide, since the standard has no 64-bit integers. Cooperative matrices are naga's own, so that their kernels have no such text.
pub fn standard(key: &KernelKey) -> Result<String> {
    let text = specialise(&key.clone().wide(false))?;
    let needs = read(key.file, &text)?;
    if needs.cooperative {
        return Err(Error::shader(key.file, "the standard has no cooperative matrices"));
    }
    Ok(if needs.subgroups { format!("enable subgroups;\n{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_kernels_need() {
        let of = |file| needs(&KernelKey::new(file)).unwrap();
        assert_eq!(of("conv.wgsl"), Needs::default());
        assert_eq!(of("conv_subgroups.wgsl"), Needs { subgroups: true, ..Needs::default() });
        assert!(of("pointwise_coop.wgsl").cooperative);
        assert!(needs(&KernelKey::new("conv_staged.wgsl").tile("BITS", 16)).unwrap().halves);
        assert!(!of("conv_staged.wgsl").halves);
        assert!(read("t", "// needs luck").is_err());
    }

    #[test]
    fn the_standard_wants_subgroups_enabled_and_words_narrow() {
        let text = standard(&KernelKey::new("conv_subgroups.wgsl").wide(true)).unwrap();
        assert!(text.starts_with("enable subgroups;\n") && !text.contains("u64"));
        assert!(!standard(&KernelKey::new("conv.wgsl")).unwrap().contains("enable"));
        assert!(standard(&KernelKey::new("pointwise_coop.wgsl")).is_err());
    }
}
