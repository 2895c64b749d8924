//! From finished planes to labels and probabilities on the image's own grid, slab by slab: resampled, decided, and read back
//! while the next slab is under way.

use std::ops::Range;

use super::clock::{Clock, Phase};
use super::memory::for_slabs;
use super::network::Network;
use super::plan::{SlabShape, SlabSizes};
use super::readings::{Reading, Readings, Taken};
use super::resize::{At, Table};
use super::sink::{Sink, Slab};
use super::sweep::{Summed, Sweep};
use super::uncertainty::{Probable, Uncertainty, View};
use crate::base::{Error, Result};
use crate::engine::exec::{Held, Recording, storage, vectors};
use crate::engine::gpu::Gpu;
use crate::engine::ops::slab::{Columns, Decide, Probabilities, Scored, SoftmaxSums, Source};
use crate::engine::shape::LANES;
use crate::imaging::Tap;
use crate::segment::maps::{Asked, Map};

/// A network's way back to the image's grid.
struct WayBack {
    /// Where the image's planes lie.
    planes: Vec<Tap>,
    /// H, where it changes.
    rows: Option<Table>,
    columns: Columns,
    places: wgpu::Buffer,
    /// H and W of the case.
    size: [usize; 2],
}

impl WayBack {
    fn new(gpu: &Gpu, sweep: &Sweep<'_>) -> Result<Self> {
        let case = sweep.case();
        let [_, old, columns] = case.shape;
        let same = |taps: &[Tap], old: usize| {
            taps.len() == old && taps.iter().zip(0..).all(|(t, at)| t.low == at && t.share == 0.0)
        };
        let taps = case.taps_back(1);
        let rows = (!same(&taps, old)).then(|| Table::of_taps(gpu, &taps, old)).transpose()?;
        let taps = case.taps_back(2);
        let lows: Vec<u32> = taps.iter().map(|tap| tap.low).collect();
        // voxels behind a row's last one are computed like it
        let last = Tap { low: 0, share: 0.0 };
        let padded = taps.chunks(LANES).flat_map(|word| {
            let tap = |at: usize| *word.get(at).or(word.last()).unwrap_or(&last);
            let taps = [0, 1, 2, 3].map(tap);
            [taps.map(|tap| tap.low as f32), taps.map(|tap| tap.share)]
        });
        let padded: Vec<[f32; LANES]> = padded.collect();
        let places = storage(gpu, "places of columns", 16 * padded.len() as u64)?;
        gpu.upload(&places, 0, bytemuck::cast_slice(&padded));
        let kind = if same(&taps, columns) { Columns::Same } else { Columns::of(&lows) };
        Ok(Self { planes: case.taps_back(0), rows, columns: kind, places, size: [old, columns] })
    }

    /// Vectors of the largest plane of a block, before or after rows are resampled.
    fn block(&self, rows: usize) -> usize {
        rows.max(self.size[0]) * self.size[1]
    }
}

/// Memory of one slab.
struct Buffers {
    /// Packed scores with H of the case, and of the image.
    scores: [wgpu::Buffer; 2],
    labels: wgpu::Buffer,
    /// Probabilities of a group of classes.
    maps: Option<wgpu::Buffer>,
    /// Maximum and sum of each network's softmax, and the best score, where there are several groups.
    sums: Vec<wgpu::Buffer>,
    best: wgpu::Buffer,
    /// What is written for each region.
    values: wgpu::Buffer,
}

impl Buffers {
    fn new(gpu: &Gpu, shape: &SlabShape, sizes: &SlabSizes, values: &[u32]) -> Result<Self> {
        let blocks = sizes.blocks();
        let vectors = (shape.rows * shape.words() * sizes.planes * 16) as u64;
        let scores = (sizes.planes * blocks * shape.block * 16) as u64;
        let grouped = sizes.groups.len() > 1;
        let sums = if grouped && shape.maps { shape.members } else { 0 };
        let sums = (0..sums).map(|_| storage(gpu, "sums of a softmax", 2 * vectors));
        let region_values = storage(gpu, "values of regions", 4 * values.len() as u64)?;
        gpu.upload(&region_values, 0, bytemuck::cast_slice(values));
        let maps = (blocks * LANES) as u64 * vectors;
        let maps = shape.maps.then(|| storage(gpu, "probabilities", maps)).transpose()?;
        Ok(Self {
            scores: [
                storage(gpu, "planes of a slab", scores)?,
                storage(gpu, "rows of a slab", scores)?,
            ],
            labels: storage(gpu, "labels of a slab", vectors / 4)?,
            maps,
            sums: sums.collect::<Result<_>>()?,
            best: storage(gpu, "best scores of a slab", if grouped { vectors } else { 16 })?,
            values: region_values,
        })
    }
}

/// Networks on their way over one image, with what becomes of their finished planes.
pub struct Slabs<'a> {
    gpu: &'a Gpu,
    sweeps: Vec<Sweep<'a>>,
    ways: Vec<WayBack>,
    shape: SlabShape,
    sizes: SlabSizes,
    buffers: Buffers,
    labels: Readings,
    maps: Readings,
    asked: Asked,
    uncertainty: Uncertainty,
}

impl<'a> Slabs<'a> {
    /// Before the first window. All networks have the same classes, and cases of the same image.
    ///
    /// # Errors
    ///
    /// Where the adapter has not the memory, or does not bind a plane.
    pub fn new(sweeps: Vec<Sweep<'a>>, asked: Asked) -> Result<Self> {
        let Some(first) = sweeps.first() else {
            return Err(Error::Internal("an ensemble of no networks".into()));
        };
        let Network { gpu, caps, domain, .. } = first.network();
        let ways = sweeps.iter().map(|s| WayBack::new(gpu, s)).collect::<Result<Vec<_>>>()?;
        let [planes, rows, width] = first.case().crop().shape();
        let views = View::all(&sweeps);
        let shape = SlabShape {
            rows,
            width,
            planes,
            classes: domain.labels.outputs(),
            members: sweeps.len(),
            block: ways.iter().map(|way| way.block(rows)).max().unwrap_or(1),
            maps: asked.any() || sweeps.len() > 1,
            entropy: asked.entropy,
            apart: if asked.disagreement { views.len() } else { 0 },
        };
        let sizes = shape.sizes(caps, for_slabs(first.network().memory()))?;
        log::debug!("slabs of {} planes, groups of blocks {:?}", sizes.planes, sizes.groups);
        let values: Vec<u32> = domain.labels.written().iter().map(|v| u32::from(*v)).collect();
        let buffers = Buffers::new(gpu, &shape, &sizes, &values)?;
        let words = sizes.planes * rows * shape.words();
        let map_words =
            if asked.probabilities { sizes.blocks() * LANES * words * LANES } else { 0 };
        let labels = Readings::new(gpu, words)?;
        let maps = Readings::new(gpu, map_words)?;
        let uncertainty = Uncertainty::new(gpu, &shape, &sizes, asked, views)?;
        Ok(Self { gpu, sweeps, ways, shape, sizes, buffers, labels, maps, asked, uncertainty })
    }

    /// Goes over the whole image.
    ///
    /// # Errors
    ///
    /// Where the GPU or the sink fails.
    pub fn run(&mut self, sink: &mut impl Sink, clock: &mut Clock) -> Result<()> {
        let mut first = 0;
        while first < self.shape.planes {
            for (sweep, way) in self.sweeps.iter_mut().zip(&self.ways) {
                while sweep.finished() <= way.planes[first].high() as usize {
                    sweep.advance(clock)?;
                }
            }
            let ready = |plane: usize| {
                let mut each = self.sweeps.iter().zip(&self.ways);
                each.all(|(sweep, way)| (way.planes[plane].high() as usize) < sweep.finished())
            };
            let most = (first + self.sizes.planes).min(self.shape.planes);
            let end = (first + 1..most).find(|plane| !ready(*plane)).unwrap_or(most);
            self.slab(first..end, sink, clock)?;
            first = end;
        }
        while self.take_maps(sink)? {}
        self.uncertainty.take_all(self.gpu, sink)?;
        while self.take_labels(sink)? {}
        clock.lap(self.gpu, Phase::Placing)?;
        self.sweeps.iter().try_for_each(|sweep| sweep.check_finite())
    }

    fn regions(&self) -> bool {
        self.sweeps[0].network().domain().labels.regions
    }

    fn slab(
        &mut self,
        planes: Range<usize>,
        sink: &mut impl Sink,
        clock: &mut Clock,
    ) -> Result<()> {
        let groups = self.sizes.groups.clone();
        if self.shape.maps && groups.len() > 1 && !self.regions() {
            self.softmax_sums(&planes, &groups)?;
        }
        let words = planes.len() * self.shape.rows * self.shape.words();
        for blocks in groups {
            let mut recording = Recording::new(self.gpu, "decide");
            match self.shape.maps {
                true => self.decide_by_maps(&mut recording, &planes, &blocks)?,
                false => self.decide(&mut recording, &planes, &blocks)?,
            }
            recording.submit()?;
            clock.lap(self.gpu, Phase::Deciding)?;
            let classes = self.classes(&blocks);
            if self.asked.probabilities {
                self.ask_maps(&planes, &classes, sink)?;
            }
            let reading = Reading { planes: planes.clone(), classes };
            self.uncertainty.ask_spread(self.gpu, reading, LANES * words, sink)?;
            clock.lap(self.gpu, Phase::Placing)?;
        }
        self.uncertainty.ask_entropies(self.gpu, &planes, LANES * words, sink)?;
        if self.labels.is_full() {
            self.take_labels(sink)?;
        }
        let reading = Reading { planes, classes: 0..0 };
        self.labels.ask(self.gpu, &self.buffers.labels, words, reading)?;
        clock.lap(self.gpu, Phase::Placing)
    }

    /// The classes of some blocks.
    fn classes(&self, blocks: &Range<usize>) -> Range<usize> {
        LANES * blocks.start..self.shape.classes.min(LANES * blocks.end)
    }

    fn ask_maps(
        &mut self,
        planes: &Range<usize>,
        classes: &Range<usize>,
        sink: &mut impl Sink,
    ) -> Result<()> {
        if self.maps.is_full() {
            self.take_maps(sink)?;
        }
        let words = classes.len() * planes.len() * self.shape.rows * self.shape.words() * LANES;
        let maps = self.map_buffer()?.clone();
        self.maps.ask(
            self.gpu,
            &maps,
            words,
            Reading { planes: planes.clone(), classes: classes.clone() },
        )
    }

    /// Hands the labels that were asked for first to the sink; says whether there were any.
    fn take_labels(&mut self, sink: &mut impl Sink) -> Result<bool> {
        let Some(Taken { of, values }) = self.labels.take(self.gpu)? else { return Ok(false) };
        sink.labels(Slab { planes: of.planes, values: &values })?;
        Ok(true)
    }

    /// The same of maps.
    fn take_maps(&mut self, sink: &mut impl Sink) -> Result<bool> {
        let Some(Taken { of, values }) = self.maps.take(self.gpu)? else { return Ok(false) };
        let Reading { planes, classes } = of;
        let voxels = planes.len() * self.shape.rows * self.shape.words() * LANES;
        let mut each = classes.zip(values.chunks(voxels));
        each.try_for_each(|(class, values)| {
            sink.map(Map::Probability(class), Slab { planes: planes.clone(), values })
        })?;
        Ok(true)
    }

    fn map_buffer(&self) -> Result<&wgpu::Buffer> {
        let maps = self.buffers.maps.as_ref();
        maps.ok_or_else(|| Error::Internal("probabilities that nobody asked for".into()))
    }

    /// Adds what makes a prediction's scores of a group of classes on some planes, with the image's rows and the case's columns;
    /// says what they are and where.
    fn scores(
        &self,
        recording: &mut Recording<'_>,
        view: View,
        planes: &Range<usize>,
        blocks: &Range<usize>,
    ) -> Result<(Scored, Held)> {
        let (sweep, way) = (&self.sweeps[view.sweep], &self.ways[view.sweep]);
        let caps = &sweep.network().caps;
        let [rows, columns] = way.size;
        let [before, after] = &self.buffers.scores;
        for (plane, tap) in way.planes[planes.clone()].iter().enumerate() {
            for (place, block) in blocks.clone().enumerate() {
                let first = (plane * blocks.len() + place) * rows * columns;
                let of = Summed { block, mirror: view.mirror };
                sweep.between(recording, *tap, of, At { buffer: before, first })?;
            }
        }
        let outer = planes.len() * blocks.len();
        let scores = match &way.rows {
            Some(table) => {
                let ends = [before, after].map(|buffer| At { buffer, first: 0 });
                table.record(recording, caps, [outer, columns], ends)?;
                after
            }
            None => before,
        };
        let height = self.shape.rows;
        let scored = Scored {
            rows: planes.len() * height,
            height,
            words: self.shape.words(),
            columns,
            kind: way.columns,
            blocks: blocks.len(),
            classes: self.shape.classes,
            first_class: LANES * blocks.start,
        };
        Ok((scored, vectors(caps, scores, 0, outer * height * columns)?.0))
    }

    /// The networks, each over all of its mirror images.
    fn networks(&self) -> impl Iterator<Item = View> + use<'a> {
        (0..self.sweeps.len()).map(|sweep| View { sweep, mirror: None })
    }

    fn softmax_sums(&self, planes: &Range<usize>, groups: &[Range<usize>]) -> Result<()> {
        let mut recording = Recording::new(self.gpu, "sums of a softmax");
        let apart = self.uncertainty.apart.iter();
        let apart = apart.flat_map(|apart| apart.views.iter().copied().zip(&apart.sums));
        for (view, sums) in self.networks().zip(&self.buffers.sums).chain(apart) {
            for blocks in groups {
                let (scored, scores) = self.scores(&mut recording, view, planes, blocks)?;
                let named = [
                    ("scores", scores),
                    ("places", Held::whole(&self.ways[view.sweep].places)),
                    ("sums", Held::whole(sums)),
                ];
                let caps = &self.sweeps[view.sweep].network().caps;
                recording.add(SoftmaxSums(scored).call(caps)?, named)?;
            }
        }
        recording.submit()?;
        Ok(())
    }

    /// Adds the mean probabilities of the networks as maps.
    fn probabilities(
        &self,
        recording: &mut Recording<'_>,
        planes: &Range<usize>,
        blocks: &Range<usize>,
    ) -> Result<Scored> {
        let members = self.sweeps.len();
        let mut last = None;
        for view in self.networks() {
            let member = view.sweep;
            let (scored, scores) = self.scores(recording, view, planes, blocks)?;
            let scale = if member + 1 == members { 1.0 / members as f32 } else { 1.0 };
            let call = Probabilities { add: member > 0, scale, ..self.alone(scored) };
            let sums = self.buffers.sums.get(member).unwrap_or(&self.buffers.best);
            let named = [
                ("scores", scores),
                ("places", Held::whole(&self.ways[member].places)),
                ("maps", Held::whole(self.map_buffer()?)),
                ("sums", Held::whole(sums)),
            ];
            recording.add(call.call(&self.sweeps[member].network().caps)?, named)?;
            last = Some(scored);
        }
        last.ok_or_else(|| Error::Internal("an ensemble of no networks".into()))
    }

    /// The probabilities of a single prediction.
    fn alone(&self, scored: Scored) -> Probabilities {
        let regions = self.regions();
        let grouped = self.sizes.groups.len() > 1 && !regions;
        Probabilities { scored, regions, grouped, add: false, scale: 1.0 }
    }

    /// Adds how far the predictions lie apart.
    fn spread(
        &self,
        recording: &mut Recording<'_>,
        planes: &Range<usize>,
        blocks: &Range<usize>,
        of: &Probable<'_>,
    ) -> Result<()> {
        let Some(apart) = &self.uncertainty.apart else { return Ok(()) };
        for (index, view) in apart.views.iter().enumerate() {
            let (scored, scores) = self.scores(recording, *view, planes, blocks)?;
            let sums = apart.sums.get(index).unwrap_or(&self.buffers.best);
            let named = [
                ("scores", scores),
                ("places", Held::whole(&self.ways[view.sweep].places)),
                ("maps", Held::whole(&apart.own)),
                ("sums", Held::whole(sums)),
            ];
            let caps = &self.sweeps[view.sweep].network().caps;
            recording.add(self.alone(scored).call(caps)?, named)?;
            apart.add(recording, of, index)?;
        }
        Ok(())
    }

    fn decide_by_maps(
        &self,
        recording: &mut Recording<'_>,
        planes: &Range<usize>,
        blocks: &Range<usize>,
    ) -> Result<()> {
        let scored = self.probabilities(recording, planes, blocks)?;
        let maps = || self.map_buffer().map(Held::whole);
        self.argmax(recording, scored, Source::Maps, maps()?)?;
        let of = Probable {
            caps: &self.sweeps[0].network().caps,
            regions: self.regions(),
            vectors: scored.rows * scored.words,
            outputs: self.shape.classes,
            classes: self.classes(blocks),
        };
        self.uncertainty.entropy(recording, &of, maps()?)?;
        self.spread(recording, planes, blocks, &of)
    }

    fn decide(
        &self,
        recording: &mut Recording<'_>,
        planes: &Range<usize>,
        blocks: &Range<usize>,
    ) -> Result<()> {
        let first = View { sweep: 0, mirror: None };
        let (scored, scores) = self.scores(recording, first, planes, blocks)?;
        self.argmax(recording, scored, Source::Packed, scores)
    }

    fn argmax(
        &self,
        recording: &mut Recording<'_>,
        scored: Scored,
        source: Source,
        scores: Held,
    ) -> Result<()> {
        // a region is where it is likelier than not
        let least = if source == Source::Maps { 0.5 } else { 0.0 };
        let threshold = self.regions().then_some(least);
        let grouped = self.sizes.groups.len() > 1;
        let call = Decide { scored, source, threshold, grouped };
        let named = [
            ("scores", scores),
            ("places", Held::whole(&self.ways[0].places)),
            ("labels", Held::whole(&self.buffers.labels)),
            ("values", Held::whole(&self.buffers.values)),
            ("best", Held::whole(&self.buffers.best)),
        ];
        recording.add(call.call(&self.sweeps[0].network().caps)?, named)
    }
}
