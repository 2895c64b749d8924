//! Whether the lengths in a DICOM file fit into it: what reads it takes memory for them before it reads.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};

/// Sequences within one another at most.
const DEEPEST: usize = 24;
/// A length that is told by what ends it.
const UNTOLD: u32 = u32::MAX;
/// Explicit types in big-endian order, which is retired.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Bytes before the first element.
pub(super) const START: usize = 132;

/// Refuses lengths that reach beyond the file, and sequences in sequences without end; says what was found.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { bytes, at: START, explicit: true, big: false, open: Vec::new() };
    walk.meta()?;
    while walk.step()? {}
    Ok(())
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    explicit: bool,
    big: bool,
    /// Sequences and items around.
    open: Vec<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    /// Its last byte, where it is told.
    end: Option<usize>,
    /// Whether it holds pieces of pixel data.
    pieces: bool,
    /// Whether its elements have no types.
    implicit: bool,
}

/// An element's tag, type and length.
struct Head {
    tag: Tag,
    vr: VR,
    length: u32,
}

impl Walk<'_> {
    fn short(&self, at: usize) -> u16 {
        let bytes: [u8; 2] = self.bytes[at..at + 2].try_into().unwrap_or_default();
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn long(&self, at: usize) -> u32 {
        let bytes: [u8; 4] = self.bytes[at..at + 4].try_into().unwrap_or_default();
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// The next element's head, behind which it goes; none at the end, or where it is cut off, which reading tells.
    fn head(&mut self) -> Option<Head> {
        self.bytes.get(self.at..self.at + 8)?;
        let tag = Tag(self.short(self.at), self.short(self.at + 2));
        let implicit = self.open.last().is_some_and(|open| open.implicit) || !self.explicit;
        if implicit || tag.group() == 0xfffe {
            let known = StandardDataDictionary.by_tag(tag);
            let vr = known.map_or(VR::UN, |entry| entry.vr().relaxed());
            let head = Head { tag, vr, length: self.long(self.at + 4) };
            self.at += 8;
            return Some(head);
        }
        let letters = [self.bytes[self.at + 4], self.bytes[self.at + 5]];
        let vr = VR::from_binary(letters).unwrap_or(VR::UN);
        let short = matches!(
            vr,
            VR::AE
                | VR::AS
                | VR::AT
                | VR::CS
                | VR::DA
                | VR::DS
                | VR::DT
                | VR::FL
                | VR::FD
                | VR::IS
                | VR::LO
                | VR::LT
                | VR::PN
                | VR::SH
                | VR::SL
                | VR::SS
                | VR::ST
                | VR::TM
                | VR::UI
                | VR::UL
                | VR::US
        );
        if short {
            let length = self.short(self.at + 6).into();
            self.at += 8;
            return Some(Head { tag, vr, length });
        }
        self.bytes.get(self.at..self.at + 12)?;
        let length = self.long(self.at + 8);
        self.at += 12;
        Some(Head { tag, vr, length })
    }

    /// The byte behind a value.
    fn end(&self, head: &Head) -> Result<usize, String> {
        let end = self.at.saturating_add(head.length as usize);
        match end <= self.bytes.len() {
            true => Ok(end),
            false => Err(format!(
                "{} bytes of {} at byte {}, where the file has {} more",
                head.length,
                head.tag,
                self.at,
                self.bytes.len() - self.at
            )),
        }
    }

    /// Goes through what comes before the data set, and finds how that is written.
    fn meta(&mut self) -> Result<(), String> {
        let mut written = None;
        loop {
            let before = self.at;
            let Some(head) = self.head().filter(|head| head.tag.group() == 2) else {
                self.at = before;
                break;
            };
            let end = self.end(&head)?;
            if head.tag == tags::TRANSFER_SYNTAX_UID && written.is_none() {
                let text = String::from_utf8_lossy(&self.bytes[self.at..end]);
                let uid = text.trim_end_matches(['\0', ' ']);
                written = Some((uid != uids::IMPLICIT_VR_LITTLE_ENDIAN, uid == BIG_ENDIAN));
            }
            self.at = end;
        }
        // of the elements that follow the meta group
        if let Some((explicit, big)) = written {
            (self.explicit, self.big) = (explicit, big);
        }
        Ok(())
    }

    /// Goes behind an element, or into a sequence; whether there is more.
    fn step(&mut self) -> Result<bool, String> {
        while self.open.last().is_some_and(|open| open.end.is_some_and(|end| end <= self.at)) {
            self.open.pop();
        }
        let Some(head) = self.head() else { return Ok(false) };
        let around = self.open.last().copied();
        let implicit = around.is_some_and(|open| open.implicit) || head.vr == VR::UN;
        match head.tag {
            Tag(0xfffe, 0xe000) => match around {
                Some(Open { pieces: true, .. }) => self.at = self.end(&head)?,
                _ => self.enter(&head, false, around.is_some_and(|open| open.implicit))?,
            },
            Tag(0xfffe, _) => drop(self.open.pop()),
            tag if head.length == UNTOLD => self.enter(&head, tag == tags::PIXEL_DATA, implicit)?,
            _ if head.vr == VR::SQ => {
                self.enter(&head, false, around.is_some_and(|open| open.implicit))?;
            }
            _ => self.at = self.end(&head)?,
        }
        Ok(true)
    }

    fn enter(&mut self, head: &Head, pieces: bool, implicit: bool) -> Result<(), String> {
        if self.open.len() >= DEEPEST {
            return Err(format!("more than {DEEPEST} sequences within one another"));
        }
        let end = if head.length == UNTOLD { None } else { Some(self.end(head)?) };
        self.open.push(Open { end, pieces, implicit });
        Ok(())
    }
}
