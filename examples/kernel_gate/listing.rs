//! What a kernel's code holds, loop by loop, read from the compiler's own listing.

use u2seg::{Error, Result};

/// Instructions of a wave; memory in 32-bit words a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Vector instructions, with `fused`.
    pub vector: f64,
    /// Fused multiply-adds.
    pub fused: f64,
    /// Instructions that read storage.
    pub loads: f64,
    /// Words that they read, and that others write.
    pub words: f64,
    /// Words read from and written to workgroup memory.
    pub shared: f64,
    /// Reads that serve a whole wave.
    pub scalar_loads: f64,
}

impl Counts {
    /// Adds what runs `times`.
    pub fn add(&mut self, other: &Self, times: f64) {
        self.vector += other.vector * times;
        self.fused += other.fused * times;
        self.loads += other.loads * times;
        self.words += other.words * times;
        self.shared += other.shared * times;
        self.scalar_loads += other.scalar_loads * times;
    }

    fn count(&mut self, instruction: &str) {
        let text = instruction.rsplit(" = ").next().unwrap_or(instruction);
        let name = text.split_whitespace().next().unwrap_or_default();
        if name.starts_with("v_") {
            self.vector += 1.0;
            let fused = ["v_fma", "v_mad", "v_mac", "v_pk_fma"];
            self.fused += f64::from(u8::from(fused.iter().any(|f| name.starts_with(f))));
        } else if name.starts_with("s_load") || name.starts_with("s_buffer") {
            self.scalar_loads += 1.0;
        } else if name.starts_with("ds_") {
            self.shared += words(name);
        } else if name.contains("_load_") {
            self.loads += 1.0;
            self.words += words(name);
        } else if name.contains("_store_") {
            self.words += words(name);
        }
    }
}

/// 32-bit words a lane that an access moves.
fn words(name: &str) -> f64 {
    let widths = [("x4", 4.0), ("x3", 3.0), ("x2", 2.0), ("b128", 4.0), ("b96", 3.0), ("b64", 2.0)];
    let width = widths.iter().find(|(end, _)| name.ends_with(end)).map_or(1.0, |(_, n)| *n);
    // two at once
    if name.contains("read2") || name.contains("write2") { 2.0 * width } else { width }
}

/// A loop, or what stands outside of all.
#[derive(Debug, Clone, Default)]
pub struct Loop {
    /// The loop around it, by place.
    pub parent: Option<usize>,
    /// What runs in it but not in loops within it.
    pub counts: Counts,
}

/// All loops in the order in which they begin, after what stands outside of them.
///
/// # Errors
///
/// Where loops end that did not begin.
pub fn loops(text: &str) -> Result<Vec<Loop>> {
    let mut loops = vec![Loop::default()];
    let mut within = 0;
    for line in text.lines() {
        if line.contains("logical preds") {
            if line.contains("loop-exit") {
                let ended = loops[within].parent;
                within = ended
                    .ok_or_else(|| Error::Internal("a loop ends that began nowhere".into()))?;
            }
            if line.contains("loop-header") {
                loops.push(Loop { parent: Some(within), ..Loop::default() });
                within = loops.len() - 1;
            }
        } else if line.starts_with('\t') {
            loops[within].counts.count(line.trim());
        }
    }
    Ok(loops)
}

/// Prints what the loops of a listing hold, those within others set in.
pub fn show(text: &str) -> Result<()> {
    let loops = loops(text)?;
    for (at, Loop { counts: c, .. }) in loops.iter().enumerate() {
        let around = std::iter::successors(loops[at].parent, |parent| loops[*parent].parent);
        let (indent, what) = (2 * around.count() + 5, if at == 0 { "once" } else { "loop" });
        println!(
            "{:indent$}{what} {at}: {} vector instructions, of them {} fused; {} loads of {} words, {} words of workgroup memory, {} for all",
            "", c.vector, c.fused, c.loads, c.words, c.shared, c.scalar_loads
        );
    }
    Ok(())
}
