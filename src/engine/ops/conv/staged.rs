//! Convolutions and input gradients that a workgroup stages in its memory.

use super::pick::sums;
use super::site::{Geometry, Row, Workgroup};
use super::spec::ConvSpec;
use super::staged_box::StagedBox;
use super::tile::ConvCall;
use crate::base::Result;
use crate::engine::graph::{Dispatch, fold};

/// A convolution, or its input gradient.
pub struct StagedConv {
    pub geometry: Geometry,
    /// Lanes in use of an input block.
    pub lanes: u32,
    /// Size of what is made.
    pub made: [usize; 3],
}

impl StagedConv {
    /// The dispatch of a call; sizes of tensors are left to be set.
    pub fn dispatch(&self, call: ConvCall<'_>, group: Workgroup) -> Result<Dispatch> {
        let ConvCall { lowering, piece, label, mut key, tile } = call;
        let Workgroup { threads: [td, th, tw], outs, splits, streamed, halves } = group;
        let ConvSpec { kernel: [kd, kh, kw], stride: [sd, sh, sw], .. } = self.geometry.spec;
        let staged = StagedBox::new(&self.geometry, &tile, &group);
        let Row { inputs, first } = self.geometry.row(tile.vox);
        let [pitch, plane] = staged.pitches();
        key.overrides.retain(|(name, _)| !["KD", "KH", "SD", "SH"].contains(name));
        let consts = [
            ("VOX", tile.vox),
            ("LINES", tile.lines),
            ("OUT", tile.out),
            ("SUMS", sums(&tile, &group)),
            ("TD", td),
            ("TH", th),
            ("TW", tw),
            ("TO", outs),
            ("KD", kd),
            ("KH", kh),
            ("KW", kw),
            ("SD", sd),
            ("SH", sh),
            ("SW", sw),
            ("ROW", inputs),
            ("PITCH", pitch),
            ("PLANE", plane),
        ];
        let [most_d, most_h] = self.geometry.taps();
        let pad = self.geometry.spec.pad_lo[2];
        let (file, own) = match self.geometry.transposed {
            true => (
                "conv_input_staged.wgsl",
                vec![("RD", most_d), ("RH", most_h), ("PW", pad), ("FIRST", first)],
            ),
            false => ("conv_staged.wgsl", vec![("CIN", self.lanes as usize)]),
        };
        key.file = file;
        let key = match streamed {
            true => key.section("STREAMED").tile("SLOTS", staged.slots(&group) as u32),
            false => key.tile("LOADS", staged.weights().div_ceil(group.invocations()) as u32),
        };
        let key = if halves { key.tile("BITS", 16) } else { key };
        let key =
            consts.iter().chain(&own).fold(key, |key, (name, value)| key.tile(name, *value as u32));
        let [outs_made, read] = piece.runs.map(|run| run.count);
        let tiles = outs_made.div_ceil(staged.outs);
        let (parities, positions) = self.geometry.positions(self.made);
        let groups = staged.count(positions) * parities * tiles * piece.samples * splits;
        let key = key.group(group.invocations());
        Ok(Dispatch::new(label, key, fold(groups, lowering.caps)?)
            .param("tiles", tiles)
            .param("splits", splits)
            .param("split_ins", read.div_ceil(splits)))
    }
}
