//! The bytes of a file as they come, unpacked where gzip packed them.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use super::sniff::EXPECTED;
use crate::base::files::open_file;
use crate::base::{Error, Result};

/// How a gzip member begins.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Deflate packs no more bytes than this into one.
const DENSEST: u64 = 1032;
/// Bytes at the start that tell what a file is.
const HEAD: usize = 1 << 16;
/// Bytes behind those that were wanted that are read to reach a checksum.
const BEHIND: u64 = 1 << 20;
/// Bytes that are unpacked at most to tell how many there are.
const FAR: u64 = 1 << 28;

/// A file that is read from its start on, and never whole.
pub(super) struct Source {
    pub path: PathBuf,
    /// Bytes on disk, from where it begins.
    size: u64,
    /// What was read to see what the file is.
    head: Vec<u8>,
    /// Bytes of it that are behind us.
    at: usize,
    rest: Unpacked,
}

/// A file in pieces, which tells what comes next.
struct Input {
    file: File,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

enum Unpacked {
    Plain(Input),
    Packed(Box<GzDecoder<Input>>),
    /// As MetaImage packs.
    Zlib(Box<ZlibDecoder<Input>>),
    /// Behind the last member, where padding of an archive may follow.
    End,
}

/// How the voxels of a file are stored behind its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are.
    Raw,
    /// By gzip or zlib; the first bytes tell.
    Packed,
}

impl Source {
    /// From the start of a file, unpacked where it begins as gzip does.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (mut input, size) = Input::open(path)?;
        let rest = match input.is_packed().map_err(|e| Error::io(path, e))? {
            true => Unpacked::Packed(Box::new(GzDecoder::new(input))),
            false => Unpacked::Plain(input),
        };
        let mut source = Self { path: path.to_path_buf(), size, head: Vec::new(), at: 0, rest };
        source.head(HEAD)?;
        Ok(source)
    }

    /// From some byte of a file on, which becomes its first.
    pub(super) fn open_at(path: &Path, start: u64, coding: Coding) -> Result<Self> {
        let refuse = |e| Error::io(path, e);
        let (mut input, size) = Input::open(path)?;
        input.file.seek(SeekFrom::Start(start)).map_err(refuse)?;
        let rest = match coding {
            Coding::Raw => Unpacked::Plain(input),
            Coding::Packed if input.is_packed().map_err(refuse)? => {
                Unpacked::Packed(Box::new(GzDecoder::new(input)))
            }
            Coding::Packed => Unpacked::Zlib(Box::new(ZlibDecoder::new(input))),
        };
        let (path, size) = (path.to_path_buf(), size.saturating_sub(start));
        Ok(Self { path, size, head: Vec::new(), at: 0, rest })
    }

    /// The first bytes: at least as many as wanted, where there are so many.
    pub(super) fn head(&mut self, wanted: usize) -> Result<&[u8]> {
        let missing = wanted.saturating_sub(self.head.len()) as u64;
        let read = self.rest.by_ref().take(missing).read_to_end(&mut self.head);
        read.map_err(|e| self.broken(e))?;
        Ok(&self.head)
    }

    /// What [`Source::head`] has read so far.
    pub(super) fn start(&self) -> &[u8] {
        &self.head
    }

    /// Passes over bytes from the start of the file, as far as there are some.
    pub(super) fn skip(&mut self, count: u64) -> Result<()> {
        self.at = self.head.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        let mut more = self.rest.by_ref().take(count - self.at as u64);
        io::copy(&mut more, &mut io::sink()).map_err(|e| self.broken(e))?;
        Ok(())
    }

    /// The next bytes: as many as there is room for, where there are so many.
    pub(super) fn fill(&mut self, room: &mut [u8]) -> Result<usize> {
        let from_head = room.len().min(self.head.len() - self.at);
        room[..from_head].copy_from_slice(&self.head[self.at..self.at + from_head]);
        self.at += from_head;
        let mut filled = from_head;
        while filled < room.len() {
            match self.rest.read(&mut room[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(e)),
            }
        }
        Ok(filled)
    }

    /// Bytes in all, for which a packed file is read to its end; none where that lies far off.
    pub(super) fn total(&mut self) -> Result<Option<u64>> {
        if let Unpacked::Plain(_) = self.rest {
            return Ok(Some(self.size));
        }
        let mut ahead = self.rest.by_ref().take(FAR);
        let more = io::copy(&mut ahead, &mut io::sink()).map_err(|e| self.broken(e))?;
        Ok((more < FAR).then_some(self.head.len() as u64 + more))
    }

    /// Bytes on disk, from where it begins.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Most bytes that the file can unpack to.
    pub(super) fn most(&self) -> u64 {
        match self.rest {
            Unpacked::Plain(_) => self.size,
            _ => self.size.saturating_mul(DENSEST),
        }
    }

    /// All that was wanted is read: reads on to the checksum, unless much more lies before it.
    pub(super) fn check(&mut self) -> Result<()> {
        let read = match &mut self.rest {
            Unpacked::Packed(_) | Unpacked::Zlib(_) => {
                io::copy(&mut self.rest.by_ref().take(BEHIND), &mut io::sink()).map(drop)
            }
            _ => Ok(()),
        };
        read.map_err(|e| self.broken(e))
    }

    fn broken(&self, e: io::Error) -> Error {
        if matches!(self.rest, Unpacked::Plain(_)) {
            return Error::io(&self.path, e);
        }
        let kind = if matches!(self.rest, Unpacked::Zlib(_)) { "zlib" } else { "gzip" };
        let found = format!("a {kind} stream that ends or breaks early ({e})");
        let remedy = "Copy or download the file again.";
        Error::file(&self.path, found, "a whole packed file", remedy)
    }
}

impl Input {
    /// A file with its size.
    fn open(path: &Path) -> Result<(Self, u64)> {
        let file = match open_file(path, EXPECTED) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let remedy = "Correct the path, or restore the file.";
                return Err(Error::file(path, "no such file", EXPECTED, remedy));
            }
            file => file?,
        };
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        Ok((Self { file, buffer: vec![0; HEAD].into_boxed_slice(), at: 0, end: 0 }, size))
    }

    /// Whether a gzip member comes next.
    fn is_packed(&mut self) -> io::Result<bool> {
        while self.end - self.at < MAGIC.len() {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            let count = self.file.read(&mut self.buffer[self.end..])?;
            if count == 0 {
                break;
            }
            self.end += count;
        }
        Ok(self.buffer[self.at..self.end].starts_with(&MAGIC))
    }
}

impl Read for Input {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(room)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, self.file.read(&mut self.buffer)?);
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Unpacked {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let member = match self {
                Self::Plain(input) => return input.read(room),
                Self::Zlib(stream) => return stream.read(room),
                Self::End => return Ok(0),
                Self::Packed(member) => member,
            };
            match member.read(room)? {
                0 if !room.is_empty() => {}
                count => return Ok(count),
            }
            // members follow one another
            let Self::Packed(member) = std::mem::replace(self, Self::End) else { continue };
            let mut input = member.into_inner();
            if input.is_packed()? {
                *self = Self::Packed(Box::new(GzDecoder::new(input)));
            }
        }
    }
}
