// Class scores of a voxel, from packed logits.
//
// Asks of the importing file: the binding logits, vec4<f32> [samples, CB, V]; params.voxels (V) and params.classes.
// Source: the layout of packed channels.

// import class_lanes

const LOWEST: f32 = -3.4e38;

// Scores of a block; the lowest number in padding lanes.
fn load(base: u32, block: u32) -> vec4<f32> {
    let x = logits[base + block * params.voxels];
    return select(vec4<f32>(LOWEST), x, lanes_of(block) < vec4<u32>(params.classes));
}

// Maximum of a voxel's scores.
fn peak_of(base: u32, blocks: u32) -> f32 {
    var top = vec4<f32>(LOWEST);
    for (var b = 0u; b < blocks; b += 1u) {
        top = max(top, load(base, b));
    }
    return max(max(top.x, top.y), max(top.z, top.w));
}
