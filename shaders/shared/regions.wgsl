// Bits of regions, of which a voxel's label may belong to several.
//
// Asks of the importing file: the binding unlabelled, u32 [.., 8], bit r of a sample's first word where it does not label region
// r, read with PARTIAL; params.regions (at most 32) and params.entries, the label indices that the table of regions has.
// Source: the definition.

// The four bits of a block as 0 or 1.
fn bits_of(bits: u32, block: u32) -> vec4<u32> {
    return (vec4<u32>(bits >> (4u * block)) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
}

// Bits of the regions that count at a voxel.
fn counted(sample: u32, label: u32) -> u32 {
    var bits = 0u;
    if label < params.entries {
        bits = 0xffffffffu >> (32u - params.regions);
        if PARTIAL {
            bits &= ~unlabelled[8u * sample];
        }
    }
    return bits;
}
