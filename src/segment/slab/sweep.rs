//! A network advances over a case along D: rows of windows are cut out of the planes that lie in GPU memory, run, and their logits
//! summed, until planes are finished, since no further window covers them.

use super::clock::{Clock, Phase};
use super::network::Network;
use super::resize::At;
use super::ring::{Plane, Ring};
use crate::base::{Error, Result};
use crate::engine::exec::{Held, Recording, storage, vectors};
use crate::engine::graph::DType;
use crate::engine::ops::slab::{Accumulate, BetweenPlanes, Cut, Placed};
use crate::engine::shape::LANES;
use crate::imaging::{Prepared, Tap};
use crate::segment::forward::Batch;
use crate::segment::window::axis_positions;

/// A window that the network sees once, and what its logits are summed to.
#[derive(Clone, Copy)]
struct Window {
    placed: Placed,
    /// Which of the mirror images it is, from 0, the window as it lies.
    mirror: usize,
    /// Voxels at or beyond these along all axes lie in no window before.
    covered: [usize; 3],
}

/// Sums of logits: of a block of classes, over all mirror images or one of them.
#[derive(Clone, Copy)]
pub(super) struct Summed {
    pub block: usize,
    pub mirror: Option<usize>,
}

/// Where a window's logits go, and how much they count.
struct Into<'r> {
    ring: &'r Ring,
    fresh: [usize; 3],
    share: f32,
}

/// A block of four channels or classes of a window, which is a sample of a batch.
#[derive(Clone, Copy)]
struct Piece<'b> {
    batch: &'b Batch,
    sample: usize,
    window: Window,
    block: usize,
}

impl Piece<'_> {
    /// All blocks of all windows of a batch, window by window.
    fn all<'b>(
        batch: &'b Batch,
        windows: &[Window],
        blocks: usize,
    ) -> impl Iterator<Item = Piece<'b>> {
        windows.iter().enumerate().flat_map(move |(sample, window)| {
            (0..blocks).map(move |block| Piece { batch, sample, window: *window, block })
        })
    }

    /// Voxels of the window.
    fn size(&self) -> usize {
        self.window.placed.size.iter().product()
    }
}

/// A network on its way over a case.
pub struct Sweep<'a> {
    network: &'a Network,
    case: &'a Prepared,
    /// First voxels of the windows along D, H, W.
    starts: [Vec<usize>; 3],
    /// The next row of windows along D.
    next: usize,
    /// Planes of the case that were sent.
    sent: usize,
    image: Ring,
    /// Weighted sums of logits, a ring for each block.
    sums: Vec<Ring>,
    /// The same of each mirror image alone, where they are told apart.
    apart: Vec<Vec<Ring>>,
    /// Whether some logit was not finite.
    flags: wgpu::Buffer,
}

/// Planes that neighbouring rows of windows may need at once.
fn depth(network: &Network, case: &Prepared) -> usize {
    network.domain.crop_size()[0].min(case.shape[0])
}

impl<'a> Sweep<'a> {
    /// Before the first window. Memory is that of the planes under a row of windows; where mirror images are told `apart`, each of
    /// them has sums of its own.
    ///
    /// # Errors
    ///
    /// Where the adapter has not the memory, or does not bind a plane.
    pub fn new(network: &'a Network, case: &'a Prepared, apart: bool) -> Result<Self> {
        let Network { gpu, caps, domain, options, .. } = network;
        let size = domain.crop_size();
        let starts =
            [0, 1, 2].map(|axis| axis_positions(case.shape[axis], size[axis], options.step_size));
        let voxels = case.shape[1] * case.shape[2];
        let depth = depth(network, case);
        let plane = Plane { elements: case.channels * voxels, bytes: 4 };
        let image = Ring::new(gpu, caps, "planes of the case", depth, plane)?;
        // one more: a plane of the image may lie between a finished plane and one that is not
        let slots = (depth + 1).min(case.shape[0]);
        let plane = Plane { elements: voxels, bytes: 16 };
        let ring = || Ring::new(gpu, caps, "sums of logits", slots, plane);
        let rings = || (0..network.blocks()).map(|_| ring()).collect::<Result<Vec<_>>>();
        let sums = rings()?;
        let alone = if apart && network.mirrors() > 1 { network.mirrors() } else { 0 };
        let apart = (0..alone).map(|_| rings()).collect::<Result<Vec<_>>>()?;
        let flags = storage(gpu, "flags", 16)?;
        Ok(Self { network, case, starts, next: 0, sent: 0, image, sums, apart, flags })
    }

    /// Mirror images that are told apart; 0 where none are.
    pub(super) fn mirrors(&self) -> usize {
        self.apart.len()
    }

    /// The network.
    pub fn network(&self) -> &'a Network {
        self.network
    }

    /// The case.
    pub fn case(&self) -> &'a Prepared {
        self.case
    }

    /// Planes from the first on that no further window covers.
    pub fn finished(&self) -> usize {
        self.starts[0].get(self.next).copied().unwrap_or(self.case.shape[0])
    }

    /// Runs the next row of windows. Planes before its first, but for one, are then overwritten.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn advance(&mut self, clock: &mut Clock) -> Result<()> {
        let Some(z) = self.starts[0].get(self.next).copied() else { return Ok(()) };
        self.send(z + depth(self.network, self.case));
        let windows = self.windows();
        let mut left = windows.as_slice();
        for batch in self.network.forward.batches() {
            // the programs of smaller batches take what is left over
            while left.len() >= batch.samples() {
                let (now, rest) = left.split_at(batch.samples());
                self.run(batch, now, clock)?;
                left = rest;
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Refuses results of which no mask can be made; waits for what was submitted.
    ///
    /// # Errors
    ///
    /// Where some logit was infinite or no number, or the GPU fails.
    pub fn check_finite(&self) -> Result<()> {
        let flags = self.network.gpu.download(&self.flags, 0, 4)?;
        if flags.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(match self.network.options.dtype {
            DType::F16 => Error::setting(
                "precision",
                "f16, in which the network's results for this image are not finite",
                "f32",
                "Store activations in f32.",
            ),
            DType::F32 => Error::setting(
                "model",
                "weights with which the network's results for this image are not finite",
                "a model whose training did well",
                "Train anew with a lower `lr`.",
            ),
        })
    }

    /// Sends planes of the case up to `end` that were not sent yet.
    fn send(&mut self, end: usize) {
        let voxels = self.case.shape[1] * self.case.shape[2];
        for z in self.sent..end.min(self.case.shape[0]) {
            for (channel, map) in self.case.image.chunks(self.case.shape[0] * voxels).enumerate() {
                let plane = &map[z * voxels..][..voxels];
                self.image.write(&self.network.gpu, z, channel * voxels, plane);
            }
            self.sent = z + 1;
        }
    }

    /// The windows of the next row in order, each with its mirror images behind it.
    fn windows(&self) -> Vec<Window> {
        let size = self.network.domain.crop_size();
        let axes: Vec<usize> = (0..3).filter(|axis| self.network.options.mirror[*axis]).collect();
        let mut windows = Vec::new();
        for y in 0..self.starts[1].len() {
            for x in 0..self.starts[2].len() {
                let place = [self.next, y, x];
                let first = [0, 1, 2].map(|axis| {
                    // where a case is smaller than the window it sits in the middle of it
                    let inset = size[axis].saturating_sub(self.case.shape[axis]) / 2;
                    self.starts[axis][place[axis]] as i64 - inset as i64
                });
                let covered = [0, 1, 2].map(|axis| match place[axis] {
                    0 => 0,
                    at => self.starts[axis][at - 1] + size[axis],
                });
                for mirror in 0..1usize << axes.len() {
                    let mut mirrored = [false; 3];
                    axes.iter().enumerate().for_each(|(bit, axis)| {
                        mirrored[*axis] = mirror >> bit & 1 == 1;
                    });
                    let placed = Placed { size, case: self.case.shape, first, mirror: mirrored };
                    windows.push(Window { placed, mirror, covered });
                }
            }
        }
        windows
    }

    fn run(&self, batch: &Batch, windows: &[Window], clock: &mut Clock) -> Result<()> {
        let gpu = &self.network.gpu;
        let mut recording = Recording::new(gpu, "cut windows");
        for piece in Piece::all(batch, windows, self.case.channels.div_ceil(LANES)) {
            self.cut(&mut recording, piece)?;
        }
        recording.submit()?;
        clock.lap(gpu, Phase::Cutting)?;
        batch.program().run(gpu)?;
        clock.lap(gpu, Phase::Forward)?;
        let mut recording = Recording::new(gpu, "sum logits");
        for piece in Piece::all(batch, windows, self.network.blocks()) {
            self.sum(&mut recording, piece)?;
        }
        recording.submit()?;
        clock.lap(gpu, Phase::Summing)
    }

    /// Cuts a block of channels of a window to where the program reads it.
    fn cut(&self, recording: &mut Recording<'_>, piece: Piece<'_>) -> Result<()> {
        let Piece { batch, sample, window, block } = piece;
        let Network { caps, domain, resizer, .. } = self.network;
        let voxels: usize = domain.patch.iter().product();
        let first = (sample * self.case.channels.div_ceil(LANES) + block) * voxels;
        let target = At { buffer: batch.image()?, first };
        let place = resizer.as_ref().map_or(target, |resizer| resizer.window());
        for (slots, image) in self.image.parts() {
            let (out, base) = vectors(caps, place.buffer, place.first, piece.size())?;
            let cut = Cut {
                placed: window.placed,
                ring: self.image.slots,
                slots,
                pitch: self.image.pitch,
                channels: self.case.channels,
                block,
                outside: self.case.outside,
                base,
            };
            recording.add(cut.call(caps)?, [("image", image), ("out", out)])?;
        }
        match resizer {
            Some(resizer) => resizer.there(recording, caps, target),
            None => Ok(()),
        }
    }

    /// Adds a block of a window's logits to the sums.
    fn sum(&self, recording: &mut Recording<'_>, piece: Piece<'_>) -> Result<()> {
        let Piece { batch, sample, window, block } = piece;
        let Network { caps, domain, resizer, .. } = self.network;
        let classes = self.network.classes();
        let voxels: usize = domain.patch.iter().product();
        let holds_classes = block < classes.div_ceil(LANES);
        // where a block has weights alone any memory serves as its logits
        let first =
            (sample * classes.div_ceil(LANES) + if holds_classes { block } else { 0 }) * voxels;
        let mut source = At { buffer: batch.logits()?, first };
        if let Some(resizer) = resizer.as_ref().filter(|_| holds_classes) {
            resizer.back(recording, caps, source)?;
        }
        if let Some(resizer) = resizer {
            source = resizer.window();
        }
        // a window's mirror images add to what the window left
        let all = Into {
            ring: &self.sums[block],
            fresh: if window.mirror == 0 { window.covered } else { self.case.shape },
            share: 1.0 / self.network.mirrors() as f32,
        };
        self.add(recording, piece, source, &all)?;
        match self.apart.get(window.mirror) {
            Some(rings) => {
                let own = Into { ring: &rings[block], fresh: window.covered, share: 1.0 };
                self.add(recording, piece, source, &own)
            }
            None => Ok(()),
        }
    }

    /// Adds logits that lie at `source` to some sums.
    fn add(
        &self,
        recording: &mut Recording<'_>,
        piece: Piece<'_>,
        source: At<'_>,
        into: &Into<'_>,
    ) -> Result<()> {
        let Into { ring, fresh, share } = into;
        let (caps, classes) = (&self.network.caps, self.network.classes());
        for (slots, sums) in ring.parts() {
            let (logits, base) = vectors(caps, source.buffer, source.first, piece.size())?;
            let accumulate = Accumulate {
                placed: piece.window.placed,
                ring: ring.slots,
                slots,
                pitch: ring.pitch,
                fresh: *fresh,
                base: (piece.block < classes.div_ceil(LANES)).then_some(base),
                weights: (piece.block == classes / LANES).then_some(classes % LANES),
                share: *share,
            };
            let weights = Held::whole(&self.network.weights);
            let flags = Held::whole(&self.flags);
            let named =
                [("logits", logits), ("weights", weights), ("sums", sums), ("flags", flags)];
            recording.add(accumulate.call(caps)?, named)?;
        }
        Ok(())
    }

    /// Adds what makes the mean logits of a block on a plane between finished ones, vectors of H, W.
    ///
    /// # Errors
    ///
    /// Where the kernel does not compile, or the plane does not fit a binding.
    pub(super) fn between(
        &self,
        recording: &mut Recording<'_>,
        tap: Tap,
        Summed { block, mirror }: Summed,
        target: At<'_>,
    ) -> Result<()> {
        let caps = &self.network.caps;
        let voxels = self.case.shape[1] * self.case.shape[2];
        let (out, base) = vectors(caps, target.buffer, target.first, voxels)?;
        let classes = self.network.classes();
        let sums = mirror.and_then(|mirror| self.apart.get(mirror)).unwrap_or(&self.sums);
        let (planes, weights) = (&sums[block], &sums[classes / LANES]);
        let (low, high) = (tap.low as usize, tap.high() as usize);
        let between = BetweenPlanes { voxels, lane: classes % LANES, share: tap.share, base };
        let named = [
            ("low", planes.plane(low)),
            ("high", planes.plane(high)),
            ("low_weights", weights.plane(low)),
            ("high_weights", weights.plane(high)),
            ("out", out),
        ];
        recording.add(between.call(caps)?, named)
    }
}
