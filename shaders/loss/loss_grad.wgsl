// Gradient of the weighted losses to the logits, p = softmax(x), t = one-hot label:
//   g[k] = a[k] - b[k] t[k] + w_lovasz dldp[k]
//   f    = (w_ce + w_focal (1 - p_t)²) / counted        the focal factor is held constant
//   dx[k] = scale (p[k] (g[k] - Σ_j p[j] g[j]) + f (p[k] - t[k]))
// With SCALED, scale is that of the loss (state word 0) times params.scale, so that no gradient vanishes in f16.
// Where the label is no class (label >= K), f and the terms of overlap are 0.
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits   vec4<f32> [samples, CB, V]   packed class scores; padding lanes are not read into the result
//   labels   u32 [.., V]                  class index; voxel i of the bound samples is labels[first + i]
//   dice     vec4<f32> [2 CB + 1]         of loss_finish: a, then b, not read where no loss of overlap has a weight; last counted
//   dldp     f32 [K, total]               of lovasz_grad; not read where w_lovasz is 0
//   state    f32 [8]                      of loss_scale; read with SCALED
//   dlogits  vec4<f32> [samples, CB, V]   gradient, from vector out_base on; padding lanes become 0
// `total` is the voxel count of the whole batch. One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: the softmax Jacobian; the published network detaches the focal factor.

struct Params {
    weights: Weights,
    @align(16) samples: u32,
    voxels: u32,
    classes: u32,
    first: u32,
    total: u32,
    scale: f32,
    out_base: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> dice: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dldp: array<f32>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> state: array<f32>;

override SCALED: bool = false;
override WG: u32 = 64u;

// import loss_terms
// import scores

fn one_hot(block: u32, label: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), lanes_of(block) == vec4<u32>(label));
}

// Gradient to the probabilities of one block; 0 in padding lanes.
fn outer(block: u32, voxel: u32, label: u32) -> vec4<f32> {
    var g = vec4<f32>(0.0);
    if any_overlap(params.weights) && label < params.classes {
        let blocks = (params.classes + 3u) / 4u;
        g = dice[block] - dice[blocks + block] * one_hot(block, label);
    }
    if params.weights.w_lovasz != 0.0 {
        let end = min(4u * block + 4u, params.classes);
        for (var k = 4u * block; k < end; k += 1u) {
            g += params.weights.w_lovasz * dldp[k * params.total + voxel] * one_hot(block, k);
        }
    }
    return g;
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
        let voxel = params.first + i;
        let label = labels[voxel];

        var peak = LOWEST;
        var top_block = 0u;
        for (var b = 0u; b < blocks; b += 1u) {
            let x = load(base, b);
            let highest = max(max(x.x, x.y), max(x.z, x.w));
            if highest > peak {
                peak = highest;
                top_block = b;
            }
        }

        // The block of the likeliest class goes first: g is taken relative to that class, or the mean of g would cancel nearly
        // all of it where one class is certain. After the loop p and g are those of the last block, with which the next begins.
        var p = vec4<f32>(0.0);
        var g = vec4<f32>(0.0);
        var sums = vec3<f32>(0.0);
        var reference = 0.0;
        for (var n = 0u; n < blocks; n += 1u) {
            let b = (top_block + n) % blocks;
            p = exp(load(base, b) - peak);
            g = outer(b, voxel, label);
            if n == 0u {
                let likeliest = select(vec4<f32>(0.0), vec4<f32>(1.0), p > vec4<f32>(0.9));
                reference = dot(g, likeliest) / dot(likeliest, vec4<f32>(1.0));
            }
            g -= reference;
            // Σ e, Σ e g, and Σ e without the label, which keeps the digits of 1 - p_t.
            let others = vec4<f32>(1.0) - one_hot(b, label);
            sums += vec3<f32>(dot(p, vec4<f32>(1.0)), dot(p, g), dot(p, others));
        }
        var scale = params.scale;
        if SCALED {
            scale = scale * state[0];
        }
        let mean = sums.y / sums.x;
        let miss = sums.z / sums.x;
        var factor = 0.0;
        if label < params.classes {
            factor = voxel_factor(params.weights, miss) / dice[2u * blocks].x;
        }
        for (var n = blocks; n > 0u; n -= 1u) {
            let b = (top_block + n - 1u) % blocks;
            if n < blocks {
                p = exp(load(base, b) - peak);
                g = outer(b, voxel, label) - reference;
            }
            let q = p / sums.x;
            let distance = select(q, vec4<f32>(-miss), lanes_of(b) == vec4<u32>(label));
            dlogits[params.out_base + base + b * params.voxels] = scale * (q * (g - mean) + factor * distance);
        }
    }
}
