//! The kernels that segment slab by slab, each over small buffers, against plain loops in f64.

use super::measure::{Expected, Tolerance};
use super::net::random;
use super::plannings::{Planning, Variants};
use super::rig::Ran;
use crate::base::Result;
use crate::engine::exec::{Held, Recording, storage};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType};
use crate::engine::ops::slab::{
    Accumulate, Along, BetweenPlanes, Call, Columns, Cut, Decide, Placed, Probabilities, Scored,
    Slots, SoftmaxSums, Source,
};

type MakeCall = Box<dyn Fn(&Caps) -> Result<Call> + Send + Sync>;

/// A call, and the words of a buffer that it binds where that is not all of them.
pub(super) struct Step {
    call: MakeCall,
    part: Option<Part>,
}

#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    first: usize,
    words: usize,
}

impl Step {
    /// Over a part of a buffer: its first word, and how many.
    pub(super) fn of_part(
        call: impl Fn(&Caps) -> Result<Call> + Send + Sync + 'static,
        name: &'static str,
        [first, words]: [usize; 2],
    ) -> Self {
        Self { call: Box::new(call), part: Some(Part { name, first, words }) }
    }

    fn whole(call: impl Fn(&Caps) -> Result<Call> + Send + Sync + 'static) -> Self {
        Self { call: Box::new(call), part: None }
    }
}

/// How the words of the result are read.
#[derive(Clone, Copy)]
pub(super) enum Reads {
    Floats,
    /// A byte each.
    Labels,
}

/// Steps one after another over buffers of words, and what one of these holds then.
pub struct SlabCase {
    pub(super) name: String,
    pub(super) buffers: Vec<(&'static str, Vec<u32>)>,
    pub(super) steps: Vec<Step>,
    pub(super) out: &'static str,
    pub(super) reads: Reads,
    pub(super) expected: Vec<f64>,
    pub(super) tolerance: Tolerance,
}

impl SlabCase {
    /// The case's name.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// As the adapter is, as the other kind of adapters, and in few groups.
    pub fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let planning = |name: &str, caps: Caps, plain: bool| Planning {
            name: name.into(),
            caps,
            dtype: DType::F32,
            variants: Variants::First,
            plain,
        };
        let gpu = Caps { software: false, ..own.clone() };
        let few = Caps { max_groups: 3, ..own.clone() };
        let mut all = vec![planning("the adapter", own.clone(), true)];
        if own.software {
            all.push(planning("gpu", gpu, true));
        }
        all.push(planning("few groups", few, false));
        all
    }

    /// Runs the steps and compares.
    pub fn run(&self, gpu: &Gpu, caps: &Caps) -> Result<Ran> {
        let mut memory = Vec::new();
        for (name, words) in &self.buffers {
            let buffer = storage(gpu, name, 4 * words.len() as u64)?;
            gpu.upload(&buffer, 0, bytemuck::cast_slice(words));
            memory.push((*name, buffer));
        }
        let mut ran = Ran::default();
        let mut recording = Recording::new(gpu, "check");
        for Step { call, part } in &self.steps {
            let call = call(caps)?;
            ran.kernels.push(call.kernel.file);
            ran.operations += call.flops;
            let named = memory.iter().map(|(name, buffer)| match part {
                Some(part) if part.name == *name => {
                    let [first, bytes] = [part.first, part.words].map(|words| 4 * words as u64);
                    (*name, Held::bytes(buffer, first, bytes))
                }
                _ => (*name, Held::whole(buffer)),
            });
            recording.add(call, named.collect::<Vec<_>>())?;
        }
        recording.submit()?;
        let moved: usize = self.buffers.iter().map(|(_, words)| 4 * words.len()).sum();
        ran.bytes = moved as u64;
        let out = memory.iter().zip(&self.buffers).find(|((name, _), _)| *name == self.out);
        let Some(((_, buffer), (_, words))) = out else { return Ok(ran) };
        let bytes = gpu.download(buffer, 0, 4 * words.len() as u64)?;
        let found: Vec<f64> = match self.reads {
            Reads::Labels => bytes.iter().map(|byte| f64::from(*byte)).collect(),
            Reads::Floats => {
                let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
                floats.into_iter().map(f64::from).collect()
            }
        };
        let (what, values) = (self.out.to_string(), self.expected.clone());
        let expected = Expected { what, values, tolerance: self.tolerance, gradient: false };
        ran.compared.push(expected.compare(&found, DType::F32));
        Ok(ran)
    }
}

pub(super) fn bits(values: &[f64]) -> Vec<u32> {
    values.iter().map(|v| (*v as f32).to_bits()).collect()
}

/// The voxel of a window that lies at `at` of one that is not mirrored.
fn turned(placed: &Placed, at: [usize; 3]) -> [usize; 3] {
    [0, 1, 2].map(|a| if placed.mirror[a] { placed.size[a] - 1 - at[a] } else { at[a] })
}

fn each([d, h, w]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..d * h * w).map(move |i| [i / (h * w), i / w % h, i % w])
}

fn index(at: [usize; 3], size: [usize; 3]) -> usize {
    (at[0] * size[1] + at[1]) * size[2] + at[2]
}

/// The case's voxel below a voxel of a window that is not mirrored, where there is one.
fn below(placed: &Placed, at: [usize; 3]) -> Option<[usize; 3]> {
    let place = [0, 1, 2].map(|a| placed.first[a] + at[a] as i64);
    let inside = (0..3).all(|a| (0..placed.case[a] as i64).contains(&place[a]));
    inside.then(|| place.map(|v| v as usize))
}

const OUTSIDE: f32 = -2.5;

/// The slots of a ring in two bindings.
fn halves(ring: usize) -> impl Iterator<Item = Slots> {
    let first = ring / 2;
    [Slots { first: 0, count: first }, Slots { first, count: ring - first }].into_iter()
}

/// Slots of so many words as a part of a buffer.
fn parted(name: &'static str, slots: Slots, words: usize) -> Part {
    Part { name, first: slots.first * words, words: slots.count * words }
}

fn cut(name: &str, placed: Placed, ring: usize, channels: usize, block: usize) -> SlabCase {
    let plane = placed.case[1] * placed.case[2];
    let (pitch, base) = ((channels * plane).next_multiple_of(64), 3);
    let image = random(ring * pitch, 3);
    let lanes = (channels - 4 * block).min(4);
    let size: usize = placed.size.iter().product();
    let mut expected = vec![0.0; 4 * (base + size)];
    for at in each(placed.size) {
        for lane in 0..lanes {
            let value = below(&placed, at).map_or(f64::from(OUTSIDE), |[z, y, x]| {
                image[z % ring * pitch + (4 * block + lane) * plane + y * placed.case[2] + x]
            });
            expected[4 * (base + index(turned(&placed, at), placed.size)) + lane] = value;
        }
    }
    let step = |slots: Slots| {
        let outside = OUTSIDE;
        let cut = Cut { placed, ring, slots, pitch, channels, block, outside, base };
        let part = parted("image", slots, pitch);
        Step { call: Box::new(move |caps| cut.call(caps)), part: Some(part) }
    };
    SlabCase {
        name: format!("window, {name}"),
        buffers: vec![("image", bits(&image)), ("out", vec![0; 4 * (base + size)])],
        steps: halves(ring).map(step).collect(),
        out: "out",
        reads: Reads::Floats,
        expected,
        tolerance: Tolerance::Absolute(0.0),
    }
}

/// Two windows, the second half beside the first, and its mirror image.
fn accumulate(name: &str, weights_lane: Option<usize>, classes: bool) -> SlabCase {
    let (case, size, ring) = ([5, 6, 9], [4, 6, 5], 5);
    let placed = |x: i64, mirror| Placed { size, case, first: [1, 0, x], mirror };
    let windows = [
        (placed(0, [false; 3]), [0, 0, 0], 1.0f32),
        (placed(3, [false; 3]), [0, 0, 5], 0.5),
        (placed(3, [true, false, true]), case, 0.5),
    ];
    let pitch = 64;
    let (logits, weights) = (random(4 * 120, 4), random(120, 5));
    // what no window has begun is never read: garbage there changes nothing
    let start = vec![7.0; 4 * ring * pitch];
    let mut sums = start.clone();
    for (placed, fresh, share) in &windows {
        for at in each(size) {
            let Some(v) = below(placed, at) else { continue };
            let p = index(turned(placed, at), size);
            let is_fresh = (0..3).all(|a| v[a] >= fresh[a]);
            for lane in 0..4 {
                let sum = &mut sums[4 * (v[0] % ring * pitch + v[1] * case[2] + v[2]) + lane];
                let x = if classes { logits[4 * p + lane] } else { 0.0 };
                let x = if weights_lane == Some(lane) { 1.0 } else { x };
                *sum = if is_fresh { 0.0 } else { *sum } + f64::from(*share) * weights[p] * x;
            }
        }
    }
    let steps = windows.iter().flat_map(|(placed, fresh, share)| {
        let (placed, fresh, share) = (*placed, *fresh, *share);
        halves(ring).map(move |slots| {
            let (base, weights) = (classes.then_some(0), weights_lane);
            let call = Accumulate { placed, ring, slots, pitch, fresh, base, weights, share };
            let part = parted("sums", slots, 4 * pitch);
            Step { call: Box::new(move |caps| call.call(caps)), part: Some(part) }
        })
    });
    SlabCase {
        name: format!("sums of windows, {name}"),
        buffers: vec![
            ("logits", bits(&logits)),
            ("weights", bits(&weights)),
            ("sums", bits(&start)),
            ("flags", vec![0; 4]),
        ],
        steps: steps.collect(),
        out: "sums",
        reads: Reads::Floats,
        expected: sums,
        tolerance: Tolerance::OfLargest(1e-6),
    }
}

/// What is said of windows whose logits are finite, but for one.
fn flagged(value: Option<f64>) -> SlabCase {
    let mut case = accumulate("flags", None, true);
    if let (Some(value), Some((_, logits))) = (value, case.buffers.first_mut()) {
        logits[4 * 60 + 2] = (value as f32).to_bits();
    }
    let mut expected = vec![0.0; 16];
    expected[0] = f64::from(u8::from(value.is_some()));
    let name = format!("windows with {value:?} among their logits");
    SlabCase { name, out: "flags", reads: Reads::Labels, expected, ..case }
}

fn between_planes(share: f32, lane: usize) -> SlabCase {
    let (voxels, base) = (77, 5);
    let planes: Vec<Vec<f64>> = (0..4).map(|seed| random(4 * voxels, seed)).collect();
    let weights = |plane: &[f64]| plane.iter().map(|w| w.abs() + 0.5).collect::<Vec<_>>();
    let (low_weights, high_weights) = (weights(&planes[2]), weights(&planes[3]));
    let t = f64::from(share);
    let mut expected = vec![0.0; 4 * (base + voxels)];
    for i in 0..4 * voxels {
        let weight = i / 4 * 4 + lane;
        let low = planes[0][i] / f64::from(low_weights[weight] as f32);
        let high = planes[1][i] / f64::from(high_weights[weight] as f32);
        expected[4 * base + i] = (1.0 - t) * low + t * high;
    }
    let call = BetweenPlanes { voxels, lane, share, base };
    SlabCase {
        name: format!("a plane {share} of the way, weights in lane {lane}"),
        buffers: vec![
            ("low", bits(&planes[0])),
            ("high", bits(&planes[1])),
            ("low_weights", bits(&low_weights)),
            ("high_weights", bits(&high_weights)),
            ("out", vec![0; 4 * (base + voxels)]),
        ],
        steps: vec![Step::whole(move |caps| call.call(caps))],
        out: "out",
        reads: Reads::Floats,
        expected,
        tolerance: Tolerance::OfLargest(1e-6),
    }
}

fn along(old: usize, new: usize, taps: usize) -> SlabCase {
    let (outer, inner, bases) = (3, 7, [2, 5]);
    let src = random(4 * (bases[0] + outer * old * inner), 1);
    let weights = random(new * taps, 2);
    let firsts: Vec<u32> = (0..new).map(|i| (i * (old - taps) / new.max(1)) as u32).collect();
    let mut expected = vec![0.0; 4 * (bases[1] + outer * new * inner)];
    for [o, i, n] in each([outer, new, inner]) {
        for lane in 0..4 {
            let term = |k: usize| {
                let row = o * old + firsts[i] as usize + k;
                weights[i * taps + k] * src[4 * (bases[0] + row * inner + n) + lane]
            };
            expected[4 * (bases[1] + (o * new + i) * inner + n) + lane] = (0..taps).map(term).sum();
        }
    }
    let call = Along { outer, old, new, inner, taps, bases };
    SlabCase {
        name: format!("{old} rows to {new} by {taps} taps"),
        buffers: vec![
            ("src", bits(&src)),
            ("firsts", firsts),
            ("weights", bits(&weights)),
            ("out", vec![0; expected.len()]),
        ],
        steps: vec![Step::whole(move |caps| call.call(caps))],
        out: "out",
        reads: Reads::Floats,
        expected,
        tolerance: Tolerance::OfLargest(2e-6),
    }
}

/// Scores of some planes between whose columns voxels lie.
struct Rows {
    planes: usize,
    height: usize,
    columns: usize,
    width: usize,
    classes: usize,
    kind: Columns,
}

impl Rows {
    fn words(&self) -> usize {
        self.width.div_ceil(4)
    }

    fn blocks(&self) -> usize {
        self.classes.div_ceil(4)
    }

    /// Column before a voxel and the share of the one behind.
    fn place(&self, x: usize) -> (usize, f64) {
        if self.kind == Columns::Same {
            return (x.min(self.columns - 1), 0.0);
        }
        let x = x.min(self.width - 1);
        let at = (x as f64 + 0.5) * self.columns as f64 / self.width as f64 - 0.5;
        let at = at.clamp(0.0, (self.columns - 1) as f64);
        // as f32 holds it
        (at.floor() as usize, f64::from((at - at.floor()) as f32))
    }

    fn places(&self) -> Vec<u32> {
        let word = |word: usize| {
            let four = [0, 1, 2, 3].map(|lane| self.place(4 * word + lane));
            [four.map(|p| p.0 as f32), four.map(|p| p.1 as f32)].concat()
        };
        (0..self.words()).flat_map(word).map(f32::to_bits).collect()
    }

    /// Packed, padding lanes as large as nothing else.
    fn scores(&self) -> Vec<f64> {
        let count = self.planes * self.blocks() * self.height * self.columns;
        let mut scores: Vec<f64> = random(4 * count, 6).iter().map(|v| v * 4.0).collect();
        for (i, score) in scores.iter_mut().enumerate() {
            let block = i / 4 / (self.height * self.columns) % self.blocks();
            if 4 * block + i % 4 >= self.classes {
                *score = 1e6;
            }
        }
        scores
    }

    /// The score of a class at a voxel of a row.
    fn at(&self, scores: &[f64], class: usize, row: usize, x: usize) -> f64 {
        let (low, share) = self.place(x);
        let high = (low + 1).min(self.columns - 1);
        let plane = row / self.height * self.blocks() + class / 4;
        let of = |column: usize| {
            let row = plane * self.height + row % self.height;
            scores[4 * (row * self.columns + column) + class % 4]
        };
        (1.0 - share) * of(low) + share * of(high)
    }

    fn scored(&self, blocks: std::ops::Range<usize>) -> Scored {
        Scored {
            rows: self.planes * self.height,
            height: self.height,
            words: self.words(),
            columns: self.columns,
            kind: self.kind,
            blocks: blocks.len(),
            classes: self.classes,
            first_class: 4 * blocks.start,
        }
    }

    /// Every voxel, rows padded to words: row and place.
    fn voxels(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let pitch = 4 * self.words();
        (0..self.planes * self.height).flat_map(move |row| (0..pitch).map(move |x| (row, x)))
    }

    fn name(&self) -> String {
        let Self { planes, height, columns, width, classes, kind } = self;
        format!(
            "{classes} classes, {planes}x{height} rows of {columns} columns to {width}, {kind:?}"
        )
    }
}

fn softmax_of(scores: &[f64]) -> Vec<f64> {
    let peak = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let sum: f64 = scores.iter().map(|x| (x - peak).exp()).sum();
    scores.iter().map(|x| (x - peak).exp() / sum).collect()
}

/// Largest scores win; or the last region that is above a threshold.
fn decide(rows: &Rows, threshold: Option<f32>) -> SlabCase {
    let scores = rows.scores();
    let value = |class: usize| class as u32 * 5 + 2;
    let label = |(row, x): (usize, usize)| {
        let all: Vec<f64> = (0..rows.classes).map(|k| rows.at(&scores, k, row, x)).collect();
        let label = match threshold {
            Some(least) => {
                let last = all.iter().rposition(|score| *score > f64::from(least));
                last.map_or(0, |class| value(class) as usize)
            }
            None => (0..all.len()).rev().max_by(|a, b| all[*a].total_cmp(&all[*b])).unwrap_or(0),
        };
        label as f64
    };
    let call = Decide {
        scored: rows.scored(0..rows.blocks()),
        source: Source::Packed,
        threshold,
        grouped: false,
    };
    let values = (0..rows.classes).map(value).collect();
    let what = if threshold.is_some() { "regions" } else { "classes" };
    SlabCase {
        name: format!("decided {what} of {}", rows.name()),
        buffers: vec![
            ("scores", bits(&scores)),
            ("places", rows.places()),
            ("labels", vec![0; rows.planes * rows.height * rows.words()]),
            ("values", values),
        ],
        steps: vec![Step::whole(move |caps| call.call(caps))],
        out: "labels",
        reads: Reads::Labels,
        expected: rows.voxels().map(label).collect(),
        tolerance: Tolerance::Absolute(0.0),
    }
}

/// Maps of four voxels a vector, a class or several at a time.
fn decide_maps(classes: usize, threshold: Option<f32>, grouped: bool) -> SlabCase {
    let (rows, words) = (5, 3);
    let voxels = rows * words * 4;
    let maps = random(classes * voxels, 8);
    let label = |voxel: usize| {
        let of = |class: &usize| maps[class * voxels + voxel];
        match threshold {
            Some(least) => {
                let last = (0..classes).rev().find(|class| of(class) > f64::from(least));
                last.map_or(0.0, |class| class as f64 + 10.0)
            }
            None => {
                let best = (0..classes).rev().max_by(|a, b| of(a).total_cmp(&of(b)));
                best.unwrap_or(0) as f64
            }
        }
    };
    let scored = Scored {
        rows,
        height: rows,
        words,
        columns: 4 * words,
        kind: Columns::Same,
        blocks: classes.div_ceil(4),
        classes,
        first_class: 0,
    };
    let call = Decide { scored, source: Source::Maps, threshold, grouped };
    SlabCase {
        name: format!("decided maps of {classes}, threshold {threshold:?}, grouped {grouped}"),
        buffers: vec![
            ("scores", bits(&maps)),
            ("labels", vec![0; rows * words]),
            ("values", (10..10 + classes as u32).collect()),
            ("best", vec![0; rows * words * 4]),
        ],
        steps: vec![Step::whole(move |caps| call.call(caps))],
        out: "labels",
        reads: Reads::Labels,
        expected: (0..voxels).map(label).collect(),
        tolerance: Tolerance::Absolute(0.0),
    }
}

/// Softmax or sigmoids, added to what is there and scaled; by sums of their own or given ones.
fn probabilities(rows: &Rows, regions: bool, grouped: bool) -> SlabCase {
    let scores = rows.scores();
    let voxels = rows.planes * rows.height * rows.words() * 4;
    let before = random(rows.classes * voxels, 9);
    let mut expected = vec![0.0; rows.classes * voxels];
    for (voxel, (row, x)) in rows.voxels().enumerate() {
        let all: Vec<f64> = (0..rows.classes).map(|k| rows.at(&scores, k, row, x)).collect();
        let p = match regions {
            true => all.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            false => softmax_of(&all),
        };
        for (class, p) in p.iter().enumerate() {
            let at = class * voxels + voxel;
            expected[at] = (p + before[at]) * 0.5;
        }
    }
    let scored = rows.scored(0..rows.blocks());
    let sums = SoftmaxSums(scored);
    let call = Probabilities { scored, regions, grouped, add: true, scale: 0.5 };
    let mut steps = Vec::new();
    if grouped {
        steps.push(Step::whole(move |caps| sums.call(caps)));
    }
    steps.push(Step::whole(move |caps| call.call(caps)));
    let what = if regions { "regions" } else { "classes" };
    let by = if grouped { " by given sums" } else { "" };
    SlabCase {
        name: format!("probabilities of {what}{by}, {}", rows.name()),
        buffers: vec![
            ("scores", bits(&scores)),
            ("places", rows.places()),
            ("sums", vec![0; 2 * voxels]),
            ("maps", bits(&before)),
        ],
        steps,
        out: "maps",
        reads: Reads::Floats,
        expected,
        tolerance: Tolerance::OfLargest(2e-6),
    }
}

/// Every kind of columns, with rows that end within a word.
fn all_rows() -> Vec<Rows> {
    let rows = |columns, width, classes, kind| Rows {
        planes: 2,
        height: 5,
        columns,
        width,
        classes,
        kind,
    };
    vec![
        rows(13, 13, 3, Columns::Same),
        rows(4, 29, 3, Columns::Few(3)),
        rows(17, 26, 6, Columns::Few(5)),
        rows(9, 9, 5, Columns::Spread),
        rows(50, 18, 9, Columns::Spread),
        rows(1, 7, 2, Columns::Few(3)),
    ]
}

/// Windows cut out and their logits summed.
pub fn windows() -> Vec<SlabCase> {
    let size = [4, 5, 6];
    let placed = |first, mirror| Placed { size, case: [7, 6, 8], first, mirror };
    vec![
        cut("inside", placed([2, 1, 2], [false; 3]), 4, 1, 0),
        cut("mirrored", placed([3, 0, 1], [true, false, true]), 4, 2, 0),
        cut("beyond the case", placed([-2, -1, 4], [false, true, false]), 7, 3, 0),
        cut("the second block", placed([0, 1, 2], [true; 3]), 5, 6, 1),
        accumulate("weights in a lane", Some(3), true),
        accumulate("no weights", None, true),
        accumulate("weights alone", Some(0), false),
        flagged(None),
        flagged(Some(f64::NAN)),
        flagged(Some(f64::NEG_INFINITY)),
    ]
}

/// Planes and rows between others.
pub fn resampled() -> Vec<SlabCase> {
    vec![
        between_planes(0.0, 3),
        between_planes(0.3, 0),
        between_planes(1.0, 2),
        along(4, 9, 2),
        along(9, 4, 2),
        along(1, 3, 1),
        along(12, 10, 7),
    ]
}

/// Classes, regions and probabilities between columns.
pub fn decided() -> Vec<SlabCase> {
    let mut cases = Vec::new();
    for rows in all_rows() {
        cases.push(decide(&rows, None));
        cases.push(decide(&rows, Some(0.25)));
        cases.push(probabilities(&rows, false, false));
        cases.push(probabilities(&rows, false, true));
        cases.push(probabilities(&rows, true, false));
    }
    for grouped in [false, true] {
        cases.push(decide_maps(7, None, grouped));
        cases.push(decide_maps(6, Some(0.5), grouped));
    }
    cases
}
