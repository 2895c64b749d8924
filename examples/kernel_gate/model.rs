//! A reckoning of how long a step takes on cards that are not there.
//!
//! The instructions of each loop times its trips give what a wave does; a dispatch takes as long as the slowest of arithmetic, workgroup
//! memory, caches, latency and memory, a share of the second slowest, and the time to begin it. It ranks kernels and shows serial walks; it is no
//! measurement. What a card makes of it stands beside the H200's measured times in docs/PERFORMANCE.md.

use std::collections::BTreeMap;

use u2seg::Result;
use u2seg::low_level::graph::{Bind, Dispatch};

use crate::card::Compiled;
use crate::listing::{Counts, Loop};
use crate::table::Table;
use crate::trips::trips;

/// Lanes of a wave.
const WAVE: f64 = 64.0;
/// Share of the second slowest that does not hide behind the slowest.
const EXPOSED: f64 = 0.3;
/// Registers of a lane that a wave of 64 may share out on a SIMD of AMD's.
const AMD_REGISTERS: f64 = 512.0;

/// A graphics card as the model knows it.
pub struct Hardware {
    /// As people call it.
    pub name: &'static str,
    units: f64,
    hertz: f64,
    /// Vector lanes a unit and cycle, and those of them that a chain of fused multiply-adds reaches.
    lanes: f64,
    fused: f64,
    /// Bytes a second: memory, and the cache that all units share.
    memory: f64,
    cache: f64,
    /// Bytes a unit and cycle: its own cache, workgroup memory.
    first_cache: f64,
    workgroup: f64,
    /// Seconds: to begin a dispatch, until a load arrives.
    launch: f64,
    latency: f64,
    /// Registers of a unit in 32-bit words; AMD's are reckoned from the compiler's own.
    registers: Option<f64>,
    /// Cycles that a wave's vector instruction takes alone.
    alone: f64,
}

const H100: Hardware = Hardware {
    name: "H100",
    units: 132.0,
    hertz: 1.75e9,
    lanes: 128.0,
    fused: 128.0,
    memory: 0.88 * 3350e9,
    cache: 5.5e12,
    first_cache: 128.0,
    workgroup: 128.0,
    launch: 2.5e-6,
    latency: 0.45e-6,
    registers: Some(65_536.0),
    alone: 4.0,
};

/// The cards.
pub const CARDS: [Hardware; 5] = [
    Hardware {
        name: "RX 7900 XTX",
        units: 96.0,
        hertz: 2.4e9,
        lanes: 64.0,
        fused: 96.0,
        memory: 0.85 * 960e9,
        cache: 2.5e12,
        first_cache: 64.0,
        workgroup: 128.0,
        launch: 3e-6,
        latency: 0.45e-6,
        registers: None,
        alone: 2.0,
    },
    Hardware {
        name: "RTX 4090",
        units: 128.0,
        hertz: 2.5e9,
        lanes: 128.0,
        fused: 128.0,
        memory: 0.88 * 1008e9,
        cache: 4e12,
        first_cache: 128.0,
        workgroup: 128.0,
        launch: 2.5e-6,
        latency: 0.35e-6,
        registers: Some(65_536.0),
        alone: 4.0,
    },
    H100,
    Hardware { name: "H200", hertz: 1.8e9, memory: 3860e9, ..H100 },
    Hardware {
        name: "M3 Max",
        units: 40.0,
        hertz: 1.4e9,
        lanes: 128.0,
        fused: 128.0,
        memory: 0.85 * 400e9,
        cache: 0.7e12,
        first_cache: 64.0,
        workgroup: 128.0,
        launch: 4e-6,
        latency: 0.5e-6,
        registers: Some(53_248.0),
        alone: 4.0,
    },
];

/// What a wave of a dispatch does.
pub struct Wave {
    counts: Counts,
    /// Trips whose loads wait for those of the trip before; loads of one trip are under way together.
    pub serial: f64,
}

impl Wave {
    /// By what the compiler made of the dispatch's kernel.
    pub fn of(dispatch: &Dispatch, compiled: &Compiled) -> Result<Self> {
        let (loops, trips) = (&compiled.loops, trips(dispatch, compiled.threads)?);
        let mut times = vec![1.0];
        let mut wave = Self { counts: Counts::default(), serial: 0.0 };
        for (at, one) in loops.iter().enumerate() {
            if let Some(parent) = one.parent {
                let own = trips.get(at - 1).ok_or_else(|| unknown(dispatch, loops))?;
                times.push(times[parent] * own);
            }
            wave.counts.add(&one.counts, times[at]);
            let waits = one.counts.loads > 0.0 || at > 0 && one.counts.scalar_loads > 0.0;
            wave.serial += f64::from(u8::from(waits)) * times[at].max(1.0);
        }
        Ok(wave)
    }
}

fn unknown(dispatch: &Dispatch, loops: &[Loop]) -> u2seg::Error {
    let (label, count) = (dispatch.kernel.label(), loops.len() - 1);
    u2seg::Error::Internal(format!("{label} has {count} loops, more than are known of it"))
}

/// Waves of a dispatch.
pub fn waves(dispatch: &Dispatch, compiled: &Compiled) -> f64 {
    let groups = dispatch.groups.iter().map(|g| f64::from(*g)).product::<f64>();
    groups * (compiled.threads as f64 / WAVE).ceil()
}

/// Bytes that the lanes of a dispatch load and store, wherever these lie.
pub fn accessed(dispatch: &Dispatch, compiled: &Compiled) -> Result<f64> {
    let words = Wave::of(dispatch, compiled)?.counts.words;
    Ok(4.0 * WAVE * words * waves(dispatch, compiled))
}

/// Seconds of a dispatch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seconds {
    /// In all.
    pub all: f64,
    /// What arithmetic and compulsory traffic need at least.
    pub floor: f64,
    /// To begin it.
    pub launch: f64,
    /// Arithmetic, workgroup memory, the unit's cache, latency, memory.
    pub parts: [f64; 5],
}

impl Seconds {
    fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.floor += other.floor;
        self.launch += other.launch;
        for (sum, part) in self.parts.iter_mut().zip(other.parts) {
            *sum += part;
        }
    }
}

/// Bytes of storage behind a binding.
fn bytes(dispatch: &Dispatch, name: &str) -> f64 {
    let found = dispatch.bindings.iter().find(|(n, _)| *n == name);
    found.map_or(0.0, |(_, bind)| {
        let (Bind::Value { words, .. } | Bind::Region { words, .. }) = bind;
        4.0 * *words as f64
    })
}

/// Bytes that are read once more because several tiles need them: from the cache of all units, as tiles run side by side.
fn repeated(dispatch: &Dispatch) -> f64 {
    let get = |name: &str| {
        let found = dispatch.params.iter().find(|(n, _)| *n == name);
        found.map_or(1.0, |(_, v)| f64::from(*v))
    };
    let constant = |name: &str| {
        let found = dispatch.kernel.consts.iter().find(|(n, _)| *n == name);
        found.map_or(1.0, |(_, v)| f64::from(*v))
    };
    let gradients = bytes(dispatch, "dy").max(bytes(dispatch, "raw"));
    match dispatch.kernel.file {
        "pointwise_weight_tiled.wgsl" => {
            let out_tiles = (get("outs") / (constant("ROWS") * constant("OUT"))).ceil();
            (out_tiles - 1.0) * bytes(dispatch, "src") + (get("in_tiles") - 1.0) * gradients
        }
        "conv_weight_tiled.wgsl" => {
            let out_tiles = (get("outs") / (constant("TEAMS") * constant("OUT"))).ceil();
            (out_tiles - 1.0) * bytes(dispatch, "src") + (get("in_tiles") - 1.0) * gradients
        }
        _ => (get("tiles") - 1.0).max(0.0) * bytes(dispatch, "src"),
    }
}

impl Hardware {
    /// Seconds of a dispatch.
    pub fn seconds(&self, dispatch: &Dispatch, found: &Table) -> Result<Seconds> {
        let compiled = found.get(&dispatch.kernel)?;
        let waves = waves(dispatch, compiled);
        let Wave { counts: c, serial } = Wave::of(dispatch, compiled)?;
        let cycles = (c.vector - c.fused) * WAVE / self.lanes + c.fused * WAVE / self.fused;
        let alone = cycles * self.alone / self.hertz;
        let a_unit = |cycles: f64| waves * cycles / self.units / self.hertz;
        let arithmetic = a_unit(cycles).max(alone);
        let shared = a_unit(4.0 * WAVE * c.shared / self.workgroup);
        let cache = a_unit(4.0 * WAVE * c.words / self.first_cache);
        let resident = self.units * self.resident(compiled);
        let latency = (waves / resident).max(1.0) * (serial * self.latency + alone);
        let memory = dispatch.bytes as f64 / self.memory + repeated(dispatch) / self.cache;
        let parts = [arithmetic, shared, cache, latency, memory];
        let mut sorted = parts;
        sorted.sort_by(f64::total_cmp);
        let flops = dispatch.flops as f64 / 2.0 / (self.units * self.fused * self.hertz);
        let floor = flops.max(dispatch.bytes as f64 / self.memory);
        let all = sorted[4] + EXPOSED * sorted[3] + self.launch;
        Ok(Seconds { all, floor, launch: self.launch, parts })
    }

    /// Waves that a unit holds.
    fn resident(&self, compiled: &Compiled) -> f64 {
        let registers = compiled.registers.max(32) as f64;
        match self.registers {
            // two SIMDs
            None => 2.0 * (AMD_REGISTERS / registers).floor().clamp(1.0, 16.0),
            Some(all) => (all / (registers * WAVE)).floor().clamp(2.0, 32.0),
        }
    }
}

/// A step on a card, by shader.
pub struct Step<'a> {
    rows: BTreeMap<&'a str, (usize, Seconds)>,
    all: Seconds,
    dispatches: usize,
}

impl<'a> Step<'a> {
    /// The step that dispatches make.
    pub fn of(hardware: &Hardware, dispatches: &'a [Dispatch], found: &Table) -> Result<Self> {
        let mut step =
            Self { rows: BTreeMap::new(), all: Seconds::default(), dispatches: dispatches.len() };
        for dispatch in dispatches {
            let seconds = hardware.seconds(dispatch, found)?;
            let row = step.rows.entry(dispatch.kernel.file).or_default();
            row.0 += 1;
            row.1.add(&seconds);
            step.all.add(&seconds);
        }
        Ok(step)
    }

    /// Prints a line for it, and one for each shader that takes a fiftieth of it or more.
    pub fn print(&self, configuration: &str, hardware: &Hardware) {
        let (ms, all) = (1e3, &self.all);
        println!(
            "{configuration} on {}: {:.2} ms, floor {:.2} ms, {} dispatches, {:.2} ms to begin them",
            hardware.name,
            all.all * ms,
            all.floor * ms,
            self.dispatches,
            all.launch * ms
        );
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.1.1.all.total_cmp(&a.1.1.all));
        for (file, (count, s)) in rows {
            let busy = s.all - s.launch;
            if s.all < all.all / 50.0 {
                continue;
            }
            let [arithmetic, shared, cache, latency, memory] = s.parts.map(|part| part * ms);
            println!(
                "  {file:28} {count:3} × {:7.3} ms, floor {:3.0} %: arithmetic {arithmetic:.3}, workgroup memory {shared:.3}, \
                 cache {cache:.3}, latency {latency:.3}, memory {memory:.3}",
                busy * ms,
                100.0 * s.floor / busy
            );
        }
    }
}
