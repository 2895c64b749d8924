//! The voxels of a file on their way into their canonical order: piece by piece, in the type that is kept, while the next
//! pieces are unpacked.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use nifti::{Endianness, NiftiHeader, NiftiType};
use rayon::prelude::*;

use super::grid::Order;
use crate::base::Result;

/// Where the bytes of voxels come from, in the order of their file.
pub(super) trait Bytes: Send {
    /// The next bytes: as many as there is room for, where there are so many.
    fn fill(&mut self, room: &mut [u8]) -> Result<usize>;
    /// All that was wanted is read: looks whether what follows is as it should be.
    fn check(&mut self) -> Result<()>;
}

/// How voxels become what is kept of them.
pub(super) trait Convert: Sync {
    type Kept: Copy + Send;
    /// What is told of all voxels at the end.
    type Told: Default + Send;
    fn convert(&self, value: f64, told: &mut Self::Told) -> Self::Kept;
    fn join(&self, told: Self::Told, more: Self::Told) -> Self::Told;
}

/// How a file stores its voxels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub kind: NiftiType,
    pub endianness: Endianness,
    /// What a stored number is multiplied by, and what is added then; none where it is the value.
    scale: Option<(f64, f64)>,
    /// Voxels along i, j, k, and channels.
    pub dims: [usize; 4],
    /// Whether the channels of a voxel follow one another; else the volumes do.
    pub interleaved: bool,
}

impl Stored {
    pub(super) fn new(header: &NiftiHeader, kind: NiftiType, dims: [usize; 4]) -> Self {
        let (slope, inter) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
        let scaled = slope.is_finite() && inter.is_finite() && slope != 0.0;
        let scale = (scaled && (slope, inter) != (1.0, 0.0)).then_some((slope, inter));
        Self { kind, endianness: header.endianness, scale, dims, interleaved: false }
    }

    /// Of values that are what is stored.
    pub(super) fn unscaled(kind: NiftiType, endianness: Endianness, dims: [usize; 4]) -> Self {
        Self { kind, endianness, scale: None, dims, interleaved: false }
    }

    /// Numbers that follow one another in a voxel.
    fn lanes(&self) -> usize {
        if self.interleaved { self.dims[3] } else { 1 }
    }

    /// Bytes of all voxels, as far as they can be counted.
    pub(super) fn bytes(&self) -> u64 {
        let size = self.kind.size_of() as u64;
        self.dims.iter().fold(size, |product, n| product.saturating_mul(*n as u64))
    }

    /// Voxels of a volume.
    pub(super) fn voxels(&self) -> usize {
        self.dims[..3].iter().product()
    }
}

/// Bytes that are unpacked at a time: some planes, or some rows of a large one.
const PIECE: usize = 1 << 22;
/// Pieces that are unpacked ahead of those that are put in order.
const AHEAD: usize = 2;

/// A block of voxels of one volume: whole planes, or rows of one plane.
#[derive(Debug, Clone, Copy)]
struct Block {
    volume: usize,
    /// First voxel along i, j, k.
    first: [usize; 3],
    /// Voxels along them.
    dims: [usize; 3],
}

/// All blocks of a file in its own order.
fn blocks(stored: &Stored) -> impl Iterator<Item = Block> + use<> {
    let [i, j, k, volumes] = stored.dims;
    let row = i * stored.kind.size_of() * stored.lanes();
    let volumes = volumes / stored.lanes();
    let rows = (PIECE / row).clamp(1, j);
    let planes = (PIECE / (row * j)).clamp(1, k);
    let block = move |volume: usize, z: usize, y: usize| Block {
        volume,
        first: [0, y, z],
        dims: [i, rows.min(j - y), planes.min(k - z)],
    };
    (0..volumes).flat_map(move |volume| {
        (0..k)
            .step_by(planes)
            .flat_map(move |z| (0..j).step_by(rows).map(move |y| block(volume, z, y)))
    })
}

/// Reads all voxels into `kept` (volumes, then canonical D, H, W); or tells of how many bytes there are where they are fewer.
/// One thread unpacks while the others put in order what it has unpacked. That thread is none of rayon's, and this one is the
/// caller's: a pool whose threads all wait for pieces goes on as they come.
pub(super) fn read<C: Convert>(
    source: &mut impl Bytes,
    stored: &Stored,
    order: &Order,
    convert: &C,
    kept: &mut [C::Kept],
) -> Result<std::result::Result<C::Told, u64>> {
    std::thread::scope(|scope| {
        let (full, pieces) = sync_channel(AHEAD);
        let (back, empty) = channel();
        let unpacking = scope.spawn(move || unpack(source, stored, &full, &empty));
        let mut told = C::Told::default();
        for (block, bytes) in blocks(stored).zip(&pieces) {
            let voxels = stored.voxels();
            for lane in 0..stored.lanes() {
                let volume = &mut kept[(block.volume + lane) * voxels..][..voxels];
                let more = Placing { block, lane, stored, order, convert }.place(&bytes, volume);
                told = convert.join(told, more);
            }
            // where nothing more is to be read, no buffer is needed
            let _ = back.send(bytes);
        }
        match unpacking.join() {
            Ok(unpacked) => Ok(unpacked?.map(|()| told)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sends the bytes of all blocks; or tells of how many there are in all.
fn unpack(
    source: &mut impl Bytes,
    stored: &Stored,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<std::result::Result<(), u64>> {
    let mut before = 0;
    for block in blocks(stored) {
        let numbers = block.dims.iter().product::<usize>() * stored.lanes();
        let count = numbers * stored.kind.size_of();
        let mut bytes = empty.try_recv().unwrap_or_default();
        bytes.resize(count, 0);
        let filled = source.fill(&mut bytes)?;
        before += filled as u64;
        if filled < count {
            return Ok(Err(before));
        }
        if full.send(bytes).is_err() {
            break;
        }
    }
    source.check()?;
    Ok(Ok(()))
}

/// Puts a block where it belongs.
struct Placing<'a, C> {
    block: Block,
    /// Which of the numbers of each voxel.
    lane: usize,
    stored: &'a Stored,
    order: &'a Order,
    convert: &'a C,
}

impl<C: Convert> Placing<'_, C> {
    fn place(&self, bytes: &[u8], volume: &mut [C::Kept]) -> C::Told {
        macro_rules! each {
            ($t:ty) => {{
                let cells = bytes.as_chunks::<{ size_of::<$t>() }>().0;
                let (lanes, lane) = (self.stored.lanes(), self.lane);
                let cell = |at: usize| cells[at * lanes + lane];
                match self.stored.endianness {
                    Endianness::Little => {
                        self.scaled(volume, |at| <$t>::from_le_bytes(cell(at)) as f64)
                    }
                    Endianness::Big => {
                        self.scaled(volume, |at| <$t>::from_be_bytes(cell(at)) as f64)
                    }
                }
            }};
        }
        match self.stored.kind {
            NiftiType::Uint8 => each!(u8),
            NiftiType::Int8 => each!(i8),
            NiftiType::Uint16 => each!(u16),
            NiftiType::Int16 => each!(i16),
            NiftiType::Uint32 => each!(u32),
            NiftiType::Int32 => each!(i32),
            NiftiType::Uint64 => each!(u64),
            NiftiType::Int64 => each!(i64),
            NiftiType::Float32 => each!(f32),
            _ => each!(f64),
        }
    }

    fn scaled(&self, volume: &mut [C::Kept], number: impl Fn(usize) -> f64 + Sync) -> C::Told {
        match self.stored.scale {
            None => self.planes(volume, number),
            Some((slope, inter)) => self.planes(volume, |at| number(at) * slope + inter),
        }
    }

    /// By canonical planes, of which no two threads write the same one.
    fn planes(&self, volume: &mut [C::Kept], value: impl Fn(usize) -> f64 + Sync) -> C::Told {
        let Order { axes, .. } = *self.order;
        let [w, h, _] = axes.map(|axis| self.stored.dims[axis]);
        let [x, y, z] = [0, 1, 2].map(|world| self.run(world));
        let planes = volume[z.low * h * w..][..z.count * h * w].par_chunks_mut(h * w);
        let plane = |(depth, plane): (usize, &mut [C::Kept])| {
            let mut told = C::Told::default();
            for (height, row) in plane.chunks_mut(w).skip(y.low).take(y.count).enumerate() {
                let row = &mut row[x.low..][..x.count];
                let at = z.at(depth) + y.at(height);
                if x.step == 1 && !x.flipped {
                    for (i, kept) in row.iter_mut().enumerate() {
                        *kept = self.convert.convert(value(at + i), &mut told);
                    }
                } else {
                    for (i, kept) in row.iter_mut().enumerate() {
                        *kept = self.convert.convert(value(at + x.at(i)), &mut told);
                    }
                }
            }
            told
        };
        let all = planes.enumerate().map(plane);
        all.reduce(C::Told::default, |a, b| self.convert.join(a, b))
    }

    /// The block's voxels along a canonical axis (0 to 2: x, y, z).
    fn run(&self, world: usize) -> Run {
        let Block { first, dims, .. } = self.block;
        let axis = self.order.axes[world];
        let step = dims[..axis].iter().product();
        let (count, flipped) = (dims[axis], self.order.flips[world]);
        let low = match flipped {
            true => self.stored.dims[axis] - first[axis] - count,
            false => first[axis],
        };
        Run { low, count, step, flipped }
    }
}

/// Voxels along a canonical axis: the first one, and where each lies in a block.
#[derive(Clone, Copy)]
struct Run {
    low: usize,
    count: usize,
    step: usize,
    flipped: bool,
}

impl Run {
    fn at(&self, index: usize) -> usize {
        self.step * if self.flipped { self.count - 1 - index } else { index }
    }
}
