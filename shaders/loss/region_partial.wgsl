// Partial sums of the losses of regions that may overlap, each output a sigmoid of its own, over chunks of voxels.
//   p = 1 / (1 + exp(-x)), t = 1 where the voxel's label belongs to the region, else 0
//   entropy = max(x, 0) - x t + log(1 + exp(-|x|))
//   columns of a row: Σ entropy, zeros, pairs of voxel and region left out, these H | H+r Σ p t | H+R+r Σ p | H+2R+r Σ t
// Left out are voxels whose label is beyond the table, and with PARTIAL regions that their sample does not label.
//
// Bindings (V voxels a sample, R <= 32 regions, CB = ceil(R / 4) blocks)
//   logits      vec4<f32> [samples, CB, V]   packed scores, from vector src_base on; padding lanes are not read into the sums
//   labels      u32 [.., V]                  label index; voxel i of the bound samples is labels[first + i]
//   table       u32 [entries]                bit r of a label index: it belongs to region r
//   unlabelled  u32 [.., 8]                  bit r of a sample's first word: it does not label region r; read with PARTIAL
//   partials    f32 [rows, H + 3R]           one row a chunk, from row `row` on
// One workgroup: one chunk of `chunk` voxels and one block of four regions; the groups of block 0 also sum the first H columns, over
// all blocks. One thread: every WG-th voxel of the chunk; then as many threads as sums add up the workgroup's in a fixed order.
// Dispatch: chunks * CB groups with chunks = ceil(samples * V / chunk), folded (group index = x + y * groups.x; chunk =
// index / CB, block = index % CB). WG is at least 16. Samples in bindings of their own: one dispatch each, with `first`
// and `row` moved on. Then loss_finish, with K = R.
// Source: the definitions; binary cross-entropy in the form that does not overflow.

struct Params {
    samples: u32,
    voxels: u32,
    regions: u32,
    entries: u32,
    first: u32,
    row: u32,
    chunks: u32,
    chunk: u32,
    src_base: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> unlabelled: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

override PARTIAL: bool = false;
override WG: u32 = 64u;

// import regions
// import loss_row
// import loss_terms

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group.x + group.y * groups.x;
    let blocks = (params.regions + 3u) / 4u;
    let chunk = index / blocks;
    let block = index % blocks;
    let count = params.samples * params.voxels;
    var begin = count;
    if chunk < params.chunks {
        begin = chunk * params.chunk;
    }
    let end = min(begin + params.chunk, count);
    let last = select(block + 1u, blocks, block == 0u);

    var entropy = vec4<f32>(0.0);
    var left_out = 0u;
    var both = vec4<f32>(0.0);
    var predicted = vec4<f32>(0.0);
    var labelled = vec4<f32>(0.0);
    for (var i = begin + local; i < end; i += WG) {
        let label = labels[params.first + i];
        let known = counted((params.first + i) / params.voxels, label);
        left_out += params.regions - countOneBits(known);
        if known != 0u {
            let base = i / params.voxels * blocks * params.voxels + i % params.voxels;
            let inside = table[label];
            for (var b = block; b < last; b += 1u) {
                let x = logits[params.src_base + base + b * params.voxels];
                let counts = vec4<f32>(bits_of(known, b));
                let t = vec4<f32>(bits_of(inside, b)) * counts;
                let e = exp(-abs(x));
                entropy += counts * (max(x, vec4<f32>(0.0)) - x * t + log(vec4<f32>(1.0) + e));
                if b == block {
                    let p = counts * select(e, vec4<f32>(1.0), x >= vec4<f32>(0.0)) / (vec4<f32>(1.0) + e);
                    both += p * t;
                    predicted += p;
                    labelled += t;
                }
            }
        }
    }
    let row = Row(params.row + chunk, block, params.regions, chunk < params.chunks);
    // of the losses of single voxels regions have the first
    var losses = VoxelLosses(0.0);
    losses.x = dot(entropy, vec4<f32>(1.0));
    write_row(Sums(Heads(losses, f32(left_out)), both, predicted, labelled), row, local);
}
