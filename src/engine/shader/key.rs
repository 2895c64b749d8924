//! Which kernel: a file and what is put in its place.

/// A specialised shader; the entry point is always `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelKey {
    /// File name, the only one in all folders of `shaders/`.
    pub file: &'static str,
    /// Values of `override` declarations; switches are 0 or 1.
    pub overrides: Vec<(&'static str, u32)>,
    /// Values of `const NAME: u32 = …;` lines.
    pub consts: Vec<(&'static str, u32)>,
    /// Bindings of `vec4<f32>` that are stored as halves, in order.
    pub halves: Vec<&'static str>,
    /// Sections of the file that are in, in order.
    pub sections: Vec<&'static str>,
    /// Whether bindings of `vec4<f32>` are read and written in 64-bit words, which adapters that compute on the CPU do faster.
    pub wide: bool,
}

impl KernelKey {
    /// The file at its defaults.
    pub fn new(file: &'static str) -> Self {
        Self {
            file,
            overrides: Vec::new(),
            consts: Vec::new(),
            halves: Vec::new(),
            sections: Vec::new(),
            wide: false,
        }
    }

    /// Puts a section in.
    pub fn section(mut self, name: &'static str) -> Self {
        self.sections.push(name);
        self.sections.sort_unstable();
        self
    }

    /// The file at its defaults, with this kernel's sections: its bindings and parameters are the kernel's.
    pub fn plain(&self) -> Self {
        Self { sections: self.sections.clone(), ..Self::new(self.file) }
    }

    /// Stores these bindings as halves.
    pub fn halves(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.halves.extend(names);
        self.halves.sort_unstable();
        self.halves.dedup();
        self
    }

    /// Reads and writes in 64-bit words, or not.
    pub fn wide(mut self, wide: bool) -> Self {
        self.wide = wide;
        self
    }

    /// Sets an override.
    pub fn set(mut self, name: &'static str, value: u32) -> Self {
        self.overrides.push((name, value));
        self
    }

    /// Sets the size of a workgroup, where it is not the usual one.
    pub fn group(self, invocations: usize) -> Self {
        if invocations == 64 { self } else { self.set("WG", invocations as u32) }
    }

    /// Replaces a `const` line.
    pub fn tile(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, value));
        self
    }

    /// The file with all that is put in its place, for messages and reports.
    pub fn label(&self) -> String {
        let values = self.overrides.iter().chain(&self.consts);
        let settings: Vec<String> = values
            .map(|(name, value)| format!("{name}={value}"))
            .chain(self.halves.iter().map(|name| format!("{name}:f16")))
            .chain(self.sections.iter().map(|name| name.to_lowercase()))
            .chain(self.wide.then(|| "wide".to_string()))
            .collect();
        format!("{} {}", self.file, settings.join(" "))
    }
}
