// Classes are packed by fours: lane l of block b is class 4 b + l.
//
// Asks nothing of the importing file.
// Source: the layout of packed channels.

fn lanes_of(block: u32) -> vec4<u32> {
    return vec4<u32>(4u * block) + vec4<u32>(0u, 1u, 2u, 3u);
}
