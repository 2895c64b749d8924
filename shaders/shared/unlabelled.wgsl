// Which classes a sample does not label.
//
// Asks of the importing file: the binding unlabelled, u32 [.., 8], where bit k % 32 of word k / 32 tells it of class k.
// Source: the definition.

// Which lanes of a block are unlabelled classes.
fn hidden(sample: u32, block: u32) -> vec4<bool> {
    let bits = unlabelled[8u * sample + block / 8u] >> (4u * (block % 8u));
    return ((vec4<u32>(bits) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u)) == vec4<u32>(1u);
}
