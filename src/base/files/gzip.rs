//! gzip on all cores: one member of deflate blocks that are packed apart and joined on whole bytes, as pigz does. The bytes
//! depend on the contents alone, not on how many threads there are.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::base::locked;

/// Bytes that are packed at a time. Blocks know nothing of one another: of smaller ones the file would grow.
const BLOCK: usize = 1 << 19;
/// Blocks that are on their way at most, whatever the number of threads: bounds the memory.
const MOST: usize = 32;
/// Magic, deflate, no name and no time, packed fast, on whatever system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// How hard it is tried to pack well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// For floats, whose low bits pack little however long one tries: twice as fast, and a fifth larger.
    Least,
    /// For whole numbers, such as masks, which it makes a third smaller.
    Little,
}

impl Effort {
    fn level(self) -> Compression {
        Compression::new(match self {
            Self::Least => 1,
            Self::Little => 2,
        })
    }
}

/// Packs what is written into it; the threads of rayon's pool do the work, and the caller helps only where it would wait.
/// Without [`GzipWriter::finish`] the file is cut off.
pub struct GzipWriter<W: Write> {
    inner: W,
    block: Vec<u8>,
    shop: Arc<Shop>,
    packed: Receiver<io::Result<Packed>>,
    done: Sender<io::Result<Packed>>,
    /// Packed blocks that wait for the ones before them.
    early: BTreeMap<usize, Packed>,
    /// Blocks given away, and blocks written.
    given: usize,
    written: usize,
    most: usize,
    crc: Crc,
}

/// What the threads share.
struct Shop {
    jobs: Mutex<VecDeque<Job>>,
    /// Compressors that rest: making one costs as much as packing some kilobytes.
    idle: Mutex<Vec<Compress>>,
    level: Compression,
}

struct Job {
    index: usize,
    bytes: Vec<u8>,
    last: bool,
}

struct Packed {
    index: usize,
    bytes: Vec<u8>,
    crc: Crc,
}

impl<W: Write> GzipWriter<W> {
    /// A member that begins at once.
    ///
    /// # Errors
    ///
    /// Where the header cannot be written.
    pub fn new(mut inner: W, effort: Effort) -> io::Result<Self> {
        inner.write_all(&HEADER)?;
        let (done, packed) = channel();
        Ok(Self {
            inner,
            block: Vec::with_capacity(BLOCK),
            shop: Arc::new(Shop {
                jobs: Mutex::default(),
                idle: Mutex::default(),
                level: effort.level(),
            }),
            packed,
            done,
            early: BTreeMap::new(),
            given: 0,
            written: 0,
            most: (2 * rayon::current_num_threads()).min(MOST),
            crc: Crc::new(),
        })
    }

    /// What the packed bytes go into.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Ends the member and gives the file back.
    ///
    /// # Errors
    ///
    /// Where what is left cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.give(true)?;
        while self.written < self.given {
            self.advance()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // the size modulo 2^32, as the standard has it
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    /// Gives the block to the threads.
    fn give(&mut self, last: bool) -> io::Result<()> {
        while self.given - self.written >= self.most {
            self.advance()?;
        }
        let bytes = match last {
            true => std::mem::take(&mut self.block),
            false => std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)),
        };
        locked(&self.shop.jobs).push_back(Job { index: self.given, bytes, last });
        self.given += 1;
        let (shop, done) = (self.shop.clone(), self.done.clone());
        rayon::spawn(move || {
            shop.work(&done);
        });
        self.write_ready()
    }

    /// Gets on with the next block. Where all threads do something else, as they may wait for this one, it is packed here;
    /// what another thread has begun does not wait for this one.
    fn advance(&mut self) -> io::Result<()> {
        if !self.shop.work(&self.done) {
            let packed = self.packed.recv().map_err(io::Error::other)?;
            self.take(packed?);
        }
        self.write_ready()
    }

    fn take(&mut self, packed: Packed) {
        self.early.insert(packed.index, packed);
    }

    /// Writes the packed blocks whose turn it is.
    fn write_ready(&mut self) -> io::Result<()> {
        while let Ok(packed) = self.packed.try_recv() {
            self.take(packed?);
        }
        while let Some(next) = self.early.remove(&self.written) {
            self.inner.write_all(&next.bytes)?;
            self.crc.combine(&next.crc);
            self.written += 1;
        }
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.give(false)?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Blocks that are not full stay: cut short, they would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        self.write_ready()
    }
}

impl Shop {
    /// Packs the first block that nobody has begun; false where there is none.
    fn work(&self, done: &Sender<io::Result<Packed>>) -> bool {
        let Some(job) = locked(&self.jobs).pop_front() else { return false };
        let compress = locked(&self.idle).pop();
        let mut compress = compress.unwrap_or_else(|| Compress::new(self.level, false));
        compress.reset();
        let packed = pack(&mut compress, &job);
        locked(&self.idle).push(compress);
        // where nobody takes it any more, writing has failed
        let _ = done.send(packed);
        true
    }
}

/// One block, ended on a whole byte so that the next one can follow, or the end of the member.
fn pack(compress: &mut Compress, job: &Job) -> io::Result<Packed> {
    let flush = if job.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut bytes = Vec::with_capacity(job.bytes.len() / 2 + 1024);
    loop {
        let read = compress.total_in() as usize;
        let status = compress.compress_vec(&job.bytes[read..], &mut bytes, flush)?;
        let all = compress.total_in() as usize == job.bytes.len();
        // room that is left tells that nothing is held back
        if status == Status::StreamEnd || !job.last && all && bytes.len() < bytes.capacity() {
            break;
        }
        bytes.reserve(job.bytes.len() / 2 + 1024);
    }
    let mut crc = Crc::new();
    crc.update(&job.bytes);
    Ok(Packed { index: job.index, bytes, crc })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(bytes: &[u8], pieces: usize, effort: Effort) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new(), effort).unwrap();
        bytes.chunks(pieces).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let (mut all, mut gzip) = (Vec::new(), flate2::bufread::GzDecoder::new(bytes));
        gzip.read_to_end(&mut all).unwrap();
        // one member, and nothing behind it
        assert!(gzip.into_inner().is_empty());
        all
    }

    /// Bytes that do not pack, then bytes that pack well.
    fn mixed(count: usize) -> Vec<u8> {
        let mut state = 1u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        noise.take(count / 2).chain((0..count - count / 2).map(|i| (i / 100) as u8)).collect()
    }

    #[test]
    fn what_is_packed_comes_back_whatever_its_size() {
        for count in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 77] {
            let bytes = mixed(count);
            for pieces in [1 << 12, 100_003, 3 * BLOCK] {
                for effort in [Effort::Least, Effort::Little] {
                    let found = unpacked(&packed(&bytes, pieces, effort));
                    assert!(found == bytes, "{count} by {pieces}, {effort:?}");
                }
            }
        }
    }

    #[test]
    fn the_bytes_are_the_same_on_any_number_of_threads() {
        let bytes = mixed(9 * BLOCK + 5);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // the only thread may be the one that waits
            pool.install(|| packed(&bytes, 77_777, Effort::Little))
        };
        let one = with(1);
        assert!([2, 5].into_iter().all(|threads| with(threads) == one));
        assert!(packed(&bytes, BLOCK, Effort::Little) == one);
    }

    #[test]
    fn a_disk_without_room_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bytes = mixed(20 * BLOCK);
        for room in [0, 10, BLOCK, 9 * BLOCK] {
            let all = GzipWriter::new(Full(room), Effort::Least).and_then(|mut writer| {
                writer.write_all(&bytes)?;
                writer.finish()
            });
            assert_eq!(all.err().map(|e| e.kind()), Some(io::ErrorKind::StorageFull), "{room}");
        }
    }
}
