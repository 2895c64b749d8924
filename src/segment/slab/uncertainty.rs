//! How sure a segmentation is, slab by slab: the entropy of the mean probabilities, and how far the predictions lie apart that
//! they are the mean of.

use std::ops::Range;

use super::plan::{SlabShape, SlabSizes};
use super::readings::{Reading, Readings, Taken};
use super::sink::{Sink, Slab};
use super::sweep::Sweep;
use crate::base::Result;
use crate::engine::exec::{Held, Recording, storage};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::ops::uncertainty::{Entropy, Spread};
use crate::engine::shape::LANES;
use crate::segment::maps::{Asked, Map};

/// A prediction: the network of a sweep, over all of its mirror images or one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub sweep: usize,
    pub mirror: Option<usize>,
}

impl View {
    /// The predictions that some networks make of each voxel.
    pub fn all(sweeps: &[Sweep<'_>]) -> Vec<Self> {
        let of = |(sweep, network): (usize, &Sweep<'_>)| -> Vec<Self> {
            match network.mirrors() {
                0 => vec![Self { sweep, mirror: None }],
                mirrors => (0..mirrors).map(|m| Self { sweep, mirror: Some(m) }).collect(),
            }
        };
        sweeps.iter().enumerate().flat_map(of).collect()
    }
}

/// Memory of the entropies of a slab.
struct Entropies {
    buffer: wgpu::Buffer,
    readings: Readings,
}

/// Memory of how far predictions lie apart in a group of classes of a slab.
pub(super) struct Apart {
    /// The predictions.
    pub views: Vec<View>,
    /// Probabilities of one.
    pub own: wgpu::Buffer,
    mean: wgpu::Buffer,
    squares: wgpu::Buffer,
    /// Maximum and sum of each prediction's softmax, where classes come in several groups.
    pub sums: Vec<wgpu::Buffer>,
    readings: Readings,
}

/// What of it is asked for.
pub(super) struct Uncertainty {
    entropies: Option<Entropies>,
    pub apart: Option<Apart>,
}

/// Probabilities of a group of classes on some planes.
pub(super) struct Probable<'a> {
    pub caps: &'a Caps,
    pub regions: bool,
    /// Vectors of a class.
    pub vectors: usize,
    /// Classes in all.
    pub outputs: usize,
    /// Those of the group.
    pub classes: Range<usize>,
}

impl Uncertainty {
    pub fn new(
        gpu: &Gpu,
        shape: &SlabShape,
        sizes: &SlabSizes,
        asked: Asked,
        views: Vec<View>,
    ) -> Result<Self> {
        let words = sizes.planes * shape.rows * shape.words() * LANES;
        let bytes = 4 * words as u64;
        let entropies = || -> Result<Entropies> {
            let readings = Readings::new(gpu, words)?;
            Ok(Entropies { buffer: storage(gpu, "entropies of a slab", bytes)?, readings })
        };
        let maps = sizes.blocks() * LANES;
        let apart = || -> Result<Apart> {
            let map = |label| storage(gpu, label, maps as u64 * bytes);
            let grouped = if sizes.groups.len() > 1 { views.len() } else { 0 };
            let sums = (0..grouped).map(|_| storage(gpu, "sums of a softmax", 2 * bytes));
            Ok(Apart {
                own: map("probabilities of a prediction")?,
                mean: map("mean of predictions")?,
                squares: map("spread of predictions")?,
                sums: sums.collect::<Result<_>>()?,
                readings: Readings::new(gpu, maps * words)?,
                views,
            })
        };
        Ok(Self {
            entropies: asked.entropy.then(entropies).transpose()?,
            apart: asked.disagreement.then(apart).transpose()?,
        })
    }

    /// Adds the entropies of a group of classes, whose mean probabilities are held, to those of the groups before.
    pub fn entropy(
        &self,
        recording: &mut Recording<'_>,
        of: &Probable<'_>,
        maps: Held,
    ) -> Result<()> {
        let Some(entropies) = &self.entropies else { return Ok(()) };
        let call = Entropy {
            vectors: of.vectors,
            classes: of.classes.len(),
            first: of.classes.start == 0,
            outputs: of.outputs,
            regions: of.regions,
        };
        let named = [("maps", maps), ("out", Held::whole(&entropies.buffer))];
        recording.add(call.call(of.caps)?, named)
    }

    /// Asks for the entropies of some planes, once those of all classes are added.
    pub fn ask_entropies(
        &mut self,
        gpu: &Gpu,
        planes: &Range<usize>,
        words: usize,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let Some(entropies) = &mut self.entropies else { return Ok(()) };
        if entropies.readings.is_full() {
            entropies.take(gpu, sink)?;
        }
        let reading = Reading { planes: planes.clone(), classes: 0..0 };
        entropies.readings.ask(gpu, &entropies.buffer, words, reading)
    }

    /// Asks for the spread of a group of classes on some planes, each of so many words.
    pub fn ask_spread(
        &mut self,
        gpu: &Gpu,
        reading: Reading,
        words: usize,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let Some(apart) = &mut self.apart else { return Ok(()) };
        if apart.readings.is_full() {
            apart.take(gpu, sink)?;
        }
        let words = words * reading.classes.len();
        apart.readings.ask(gpu, &apart.squares, words, reading)
    }

    /// Hands on all that was asked for.
    pub fn take_all(&mut self, gpu: &Gpu, sink: &mut impl Sink) -> Result<()> {
        if let Some(entropies) = &mut self.entropies {
            while entropies.take(gpu, sink)? {}
        }
        if let Some(apart) = &mut self.apart {
            while apart.take(gpu, sink)? {}
        }
        Ok(())
    }
}

impl Entropies {
    /// Hands the entropies that were asked for first to the sink; says whether there were any.
    fn take(&mut self, gpu: &Gpu, sink: &mut impl Sink) -> Result<bool> {
        let Some(Taken { of, values }) = self.readings.take(gpu)? else { return Ok(false) };
        sink.map(Map::Entropy, Slab { planes: of.planes, values: &values })?;
        Ok(true)
    }
}

impl Apart {
    /// Adds a prediction, whose probabilities of a group of classes lie in `own`, by position among all.
    pub fn add(&self, recording: &mut Recording<'_>, of: &Probable<'_>, view: usize) -> Result<()> {
        let vectors = of.vectors * of.classes.len();
        let call = Spread { vectors, count: view, last: view + 1 == self.views.len() };
        let named = [
            ("maps", Held::whole(&self.own)),
            ("mean", Held::whole(&self.mean)),
            ("squares", Held::whole(&self.squares)),
        ];
        recording.add(call.call(of.caps)?, named)
    }

    /// The same of spreads.
    fn take(&mut self, gpu: &Gpu, sink: &mut impl Sink) -> Result<bool> {
        let Some(Taken { of, values }) = self.readings.take(gpu)? else { return Ok(false) };
        let each = values.len() / of.classes.len().max(1);
        for (class, values) in of.classes.zip(values.chunks(each.max(1))) {
            sink.map(Map::Disagreement(class), Slab { planes: of.planes.clone(), values })?;
        }
        Ok(true)
    }
}
