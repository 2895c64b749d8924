// Merges the classes that a sample does not label into its background, so that all losses take them for background:
//   y[0] = log(exp x[0] + Σ_u exp x[u]) over the unlabelled classes u;  y[u] = -1e30, whose probability is 0;  y[k] = x[k]
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits      vec4<f32> [samples, CB, V]   packed class scores, from vector src_base on; padding lanes are not read into y
//   unlabelled  u32 [.., 8]                  bit k % 32 of word k / 32: the sample does not label class k; sample s of the bound
//                                            ones has the words from 8 (n0 + s) on
//   merged      vec4<f32> [samples, CB, V]   y, from vector out_base on; padding lanes become 0
// One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation" (marginal
// probabilities); shifted by the maximum against overflow.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    n0: u32,
    src_base: u32,
    out_base: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> unlabelled: array<u32>;
@group(0) @binding(3) var<storage, read_write> merged: array<vec4<f32>>;

override WG: u32 = 64u;
const LOWEST: f32 = -3.4e38;
const LOW: f32 = -1e30;

// import class_lanes
// import unlabelled

// Scores of the merged classes of a block, background too; the lowest number for others.
fn load(base: u32, sample: u32, block: u32) -> vec4<f32> {
    let lanes = lanes_of(block);
    let joins = (hidden(sample, block) & (lanes < vec4<u32>(params.classes))) | (lanes == vec4<u32>(0u));
    return select(vec4<f32>(LOWEST), logits[params.src_base + base + block * params.voxels], joins);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    if i < params.samples * params.voxels {
        let blocks = (params.classes + 3u) / 4u;
        let base = i / params.voxels * blocks * params.voxels + i % params.voxels;
        let sample = params.n0 + i / params.voxels;
        var top = vec4<f32>(LOWEST);
        var some = false;
        for (var b = 0u; b < blocks; b += 1u) {
            top = max(top, load(base, sample, b));
            some = some || any(hidden(sample, b));
        }
        let peak = max(max(top.x, top.y), max(top.z, top.w));
        // Where all is labelled the background stays the same bits.
        var background = peak;
        if some {
            var sum = vec4<f32>(0.0);
            for (var b = 0u; b < blocks; b += 1u) {
                sum += exp(load(base, sample, b) - peak);
            }
            background = peak + log(dot(sum, vec4<f32>(1.0)));
        }
        for (var b = 0u; b < blocks; b += 1u) {
            let lanes = lanes_of(b);
            var y = select(logits[params.src_base + base + b * params.voxels], vec4<f32>(LOW), hidden(sample, b));
            y = select(y, vec4<f32>(background), lanes == vec4<u32>(0u));
            merged[params.out_base + base + b * params.voxels] = select(vec4<f32>(0.0), y, lanes < vec4<u32>(params.classes));
        }
    }
}
