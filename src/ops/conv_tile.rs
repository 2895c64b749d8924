//! Tiles of the convolutions with three taps: candidates for a shape on an adapter, the default first.

use super::conv::ConvSpec;
use crate::graph::Caps;

/// How a convolution or its input gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// `conv.wgsl` or `conv_input.wgsl`: a thread loads the weights that it needs.
    Direct,
    /// `conv_winograd.wgsl`: a subgroup loads them once; two outputs along W take four products.
    Winograd,
}

/// What one thread makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub kernel: Kernel,
    /// Neighbours along W.
    pub vox: usize,
    /// Lines along H.
    pub lines: usize,
    /// Output blocks.
    pub out: usize,
}

/// What tiles depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub spec: ConvSpec,
    /// Whether it is the input gradient.
    pub transposed: bool,
    /// Lines of one parity, and voxels of a line, of what is made.
    pub height: usize,
    pub width: usize,
    /// Channel blocks that are made.
    pub outs: usize,
    /// Lanes in use of an input block.
    pub lanes: u32,
}

/// Output blocks that one thread keeps in registers.
pub(super) fn out_tile(outs: usize) -> usize {
    outs.min(4)
}

/// Lanes of a subgroup where its invocations can share what each of them loaded.
pub(super) fn sharing(caps: &Caps) -> Option<usize> {
    let lanes = caps.subgroup;
    (caps.software && (4..=64).contains(&lanes) && lanes.is_power_of_two())
        .then_some(lanes as usize)
}

impl Shape {
    /// Tiles that can compute the shape, the default first.
    pub fn candidates(&self, caps: &Caps) -> Vec<Tile> {
        let mut tiles = Vec::new();
        if sharing(caps).is_some() && self.is_winograd() {
            tiles.extend(self.winograd());
        }
        tiles.extend(if caps.software { self.direct_software() } else { self.direct() });
        tiles
    }

    fn is_winograd(&self) -> bool {
        let ConvSpec { kernel, stride, .. } = self.spec;
        let strides = if self.transposed { stride == [1; 3] } else { stride[2] == 1 };
        kernel[2] == 3 && strides && self.lanes == 4
    }

    /// A line of `vox` outputs costs about as much as one and a half more.
    fn winograd(&self) -> Vec<Tile> {
        let out = out_tile(self.outs);
        let mut widths = [4, 6, 2];
        widths.sort_by_key(|vox| self.width.div_ceil(*vox) * (2 * vox + 3));
        widths.map(|vox| Tile { kernel: Kernel::Winograd, vox, lines: 1, out }).to_vec()
    }

    /// Where loads are dear: two lines, so that a weight that was loaded serves both, of the count up to 10 that wastes least.
    fn direct_software(&self) -> Vec<Tile> {
        let step = if self.transposed { self.spec.stride[2] } else { 1 };
        let waste = |count: usize| self.width.next_multiple_of(count) - self.width;
        let mut widths: Vec<usize> = (1..=10 / step).map(|n| n * step).collect();
        widths.sort_by_key(|count| (waste(*count), 10 - count));
        let lines = if self.height > 1 { 2 } else { 1 };
        let tile = |vox| Tile { kernel: Kernel::Direct, vox, lines, out: out_tile(self.outs) };
        widths.into_iter().take(3).map(tile).collect()
    }

    fn direct(&self) -> Vec<Tile> {
        let out = out_tile(self.outs);
        let tile = |(vox, lines, out)| Tile { kernel: Kernel::Direct, vox, lines, out };
        let mut tiles = vec![(4, 1, out), (2, 1, out), (8, 1, out)];
        if self.height > 1 {
            tiles.push((4, 2, out));
        }
        if out > 2 {
            tiles.push((4, 1, 2));
        }
        tiles.into_iter().map(tile).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(spec: ConvSpec, width: usize, transposed: bool) -> Shape {
        Shape { spec, transposed, height: 9, width, outs: 4, lanes: 4 }
    }

    fn software(subgroup: u32) -> Caps {
        Caps { software: true, subgroup, ..Caps::default() }
    }

    #[test]
    fn defaults_follow_the_adapter() {
        let first = |shape: Shape, caps: &Caps| shape.candidates(caps)[0];
        let same = shape(ConvSpec::same(), 40, false);
        assert_eq!(first(same, &Caps::default()).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(0)).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(12)).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(8)).kernel, Kernel::Winograd);
        assert_eq!(first(same, &Caps { subgroup: 32, ..Caps::default() }).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(8)).vox, 6);
        assert_eq!(first(shape(ConvSpec::same(), 20, false), &software(8)).vox, 4);
    }

    #[test]
    fn strides_that_the_transform_cannot_do_go_the_direct_way() {
        let caps = software(8);
        let down = |stride, transposed| shape(ConvSpec::down(stride), 20, transposed);
        let winograd = |shape: Shape| {
            shape.candidates(&caps).iter().any(|tile| tile.kernel == Kernel::Winograd)
        };
        assert!(winograd(down([2, 2, 1], false)) && winograd(down([1, 1, 1], true)));
        assert!(!winograd(down([2, 2, 1], true)) && !winograd(down([1, 1, 2], false)));
        assert!(!winograd(Shape { lanes: 1, ..shape(ConvSpec::same(), 20, false) }));
    }

    /// A tile of an input gradient covers whole strides.
    #[test]
    fn tiles_along_a_stride_are_multiples() {
        for width in 1..40 {
            for caps in [software(0), software(8), Caps::default()] {
                let tiles = shape(ConvSpec::down([2; 3]), width, true).candidates(&caps);
                assert!(tiles.iter().all(|tile| tile.vox % 2 == 0 && tile.vox > 0));
            }
        }
    }
}
