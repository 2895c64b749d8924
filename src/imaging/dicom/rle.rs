//! DICOM's run lengths (PS3.5, annex G): a frame is a table of up to fifteen segments, one for each byte of a voxel from the highest, each
//! of runs and of bytes as they are. Nothing is taken from a length before the file has shown the bytes: the crates' own reader trusts it.

/// The table: a count and fifteen offsets, of four bytes each in little-endian order.
const TABLE: usize = 64;

/// Unpacks a frame of `voxels` voxels of `depth` bytes into little-endian order; what is wrong with it otherwise.
pub(super) fn unpack(frame: &[u8], voxels: usize, depth: usize) -> Result<Vec<u8>, String> {
    let table = frame
        .get(..TABLE)
        .ok_or_else(|| format!("{} bytes packed by RLE, less than a table", frame.len()))?;
    let word = |index: usize| {
        let bytes: [u8; 4] = std::array::from_fn(|byte| table[4 * index + byte]);
        u32::from_le_bytes(bytes) as usize
    };
    if word(0) != depth {
        return Err(format!("{} RLE segments of voxels of {depth} bytes", word(0)));
    }
    let mut voxel_bytes = vec![0; voxels * depth];
    for segment in 0..depth {
        let end = if segment + 1 == depth { frame.len() } else { word(segment + 2) };
        let packed = frame.get(word(segment + 1)..end).filter(|_| word(segment + 1) >= TABLE);
        let packed = packed.ok_or_else(|| {
            format!("an RLE segment at bytes {} to {end} of {}", word(segment + 1), frame.len())
        })?;
        let highest_first = depth - 1 - segment;
        let room = voxel_bytes[highest_first..].iter_mut().step_by(depth);
        runs(packed, room)
            .map_err(|short| format!("an RLE segment that lacks the last {short} of its bytes"))?;
    }
    Ok(voxel_bytes)
}

/// Fills the room by the runs of a segment, which may be padded; how much is left where they end early.
fn runs<'a>(
    packed: &[u8],
    mut room: impl ExactSizeIterator<Item = &'a mut u8>,
) -> Result<(), usize> {
    let mut at = 0;
    while room.len() > 0 {
        let Some(&length) = packed.get(at) else { return Err(room.len()) };
        at += 1;
        match length.cast_signed() {
            // says nothing, by the standard
            i8::MIN => {}
            count @ 0.. => {
                let count = usize::from(count.unsigned_abs()) + 1;
                let Some(bytes) = packed.get(at..at + count) else { return Err(room.len()) };
                room.by_ref().zip(bytes).for_each(|(to, byte)| *to = *byte);
                at += count;
            }
            count => {
                let Some(&byte) = packed.get(at) else { return Err(room.len()) };
                let again = usize::from(count.unsigned_abs()) + 1;
                room.by_ref().take(again).for_each(|to| *to = byte);
                at += 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::unpack;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut table = vec![segments.len() as u32];
        let mut at = 64;
        for segment in segments {
            table.push(at);
            at += segment.len() as u32;
        }
        table.resize(16, 0);
        let head = table.iter().flat_map(|word| word.to_le_bytes());
        head.chain(segments.concat()).collect()
    }

    #[test]
    fn runs_and_bytes_as_they_are_come_highest_byte_first() {
        // -2: three times the next; 1: the next two; -128 says nothing
        let packed = frame(&[&[0xfe, 1, 0], &[0x80, 1, 7, 8, 0, 9, 0]]);
        assert_eq!(unpack(&packed, 3, 2), Ok(vec![7, 1, 8, 1, 9, 1]));
    }

    #[test]
    fn what_the_table_or_a_run_promises_beyond_the_file_is_refused() {
        let good = frame(&[&[0xfe, 1]]);
        assert_eq!(unpack(&good, 3, 1), Ok(vec![1, 1, 1]));
        let early = unpack(&good, 4, 1).unwrap_err();
        assert_eq!(early, "an RLE segment that lacks the last 1 of its bytes");
        assert!(unpack(&good[..40], 3, 1).unwrap_err().contains("less than a table"));
        assert!(unpack(&good, 3, 2).unwrap_err().contains("1 RLE segments"));
        for place in [0, 63, 1 << 20, u32::MAX] {
            let mut far = good.clone();
            far[4..8].copy_from_slice(&place.to_le_bytes());
            assert!(unpack(&far, 3, 1).unwrap_err().contains("an RLE segment at"), "{place}");
        }
        let mut swapped = frame(&[&[0xfe, 1], &[0xfe, 1]]);
        swapped[8..12].copy_from_slice(&64u32.to_le_bytes());
        swapped[4..8].copy_from_slice(&66u32.to_le_bytes());
        assert!(unpack(&swapped, 3, 2).is_err());
    }
}
