// Partial sums of cross-entropy, focal loss and soft Dice over chunks of voxels.
//   p = softmax(x), nll = log Σ exp(x - max) - (x_t - max)
//   columns of a row: Σ of each loss of single voxels, voxels left out, these H | H+k Σ p t | H+K+k Σ p | H+2K+k Σ t; which losses
//   there are says loss_terms.wgsl
// Left out are voxels whose label is no class (label >= K); they are counted in their column alone.
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits    vec4<f32> [samples, CB, V]   packed class scores; padding lanes are not read into the result
//   labels    u32 [.., V]                  class index; voxel i of the bound samples is labels[first + i]
//   partials  f32 [rows, H + 3K]           one row a chunk, from row `row` on
// One workgroup: one chunk of `chunk` voxels and one block of four classes; the groups of block 0 also sum the first H columns.
// One thread: every WG-th voxel of the chunk; then as many threads as sums add up the workgroup's in a fixed order.
// Dispatch: chunks * CB groups with chunks = ceil(samples * V / chunk), folded (group index = x + y * groups.x; chunk =
// index / CB, block = index % CB). WG is at least 16. Samples in bindings of their own: one dispatch each, with `first`
// and `row` moved on. Then loss_finish.
// Source: the definitions.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    first: u32,
    row: u32,
    chunks: u32,
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;

override WG: u32 = 64u;

// import scores
// import loss_row
// import loss_terms

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group.x + group.y * groups.x;
    let blocks = (params.classes + 3u) / 4u;
    let chunk = index / blocks;
    let block = index % blocks;
    let lanes = lanes_of(block);
    let count = params.samples * params.voxels;
    var begin = count;
    if chunk < params.chunks {
        begin = chunk * params.chunk;
    }
    let end = min(begin + params.chunk, count);

    var losses = VoxelLosses(0.0);
    var left_out = 0.0;
    var both = vec4<f32>(0.0);
    var predicted = vec4<f32>(0.0);
    var labelled = vec4<f32>(0.0);
    for (var i = begin + local; i < end; i += WG) {
        let label = labels[params.first + i];
        if label < params.classes {
            let base = i / params.voxels * blocks * params.voxels + i % params.voxels;
            let peak = peak_of(base, blocks);
            var sums = vec4<f32>(0.0);
            var e = vec4<f32>(0.0);
            for (var n = 1u; n <= blocks; n += 1u) {
                // The group's own block comes last and stays in e.
                e = exp(load(base, (block + n) % blocks) - peak);
                sums += e;
            }
            let sum = sums.x + sums.y + sums.z + sums.w;
            let p = e / sum;
            let hit = select(vec4<f32>(0.0), vec4<f32>(1.0), lanes == vec4<u32>(label));
            both += p * hit;
            predicted += p;
            labelled += hit;
            if block == 0u {
                let shifted = logits[base + label / 4u * params.voxels][label % 4u] - peak;
                let nll = log(sum) - shifted;
                losses += voxel_losses(nll, 1.0 - exp(shifted) / sum);
            }
        } else {
            left_out += 1.0;
        }
    }
    let row = Row(params.row + chunk, block, params.classes, chunk < params.chunks);
    write_row(Sums(Heads(losses, left_out), both, predicted, labelled), row, local);
}
