// Gradient of the weighted losses to the logits, p = softmax(x), t = one-hot label:
//   g[k] = w_dice (a[k] - b[k] t[k]) + w_lovasz dldp[k]
//   f    = (w_ce + w_focal (1 - p_t)²) / total          the focal factor is held constant
//   dx[k] = scale (p[k] (g[k] - Σ_j p[j] g[j]) + f (p[k] - t[k]))
// Where the label is no class (label >= K), f and the Dice term are 0.
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits   vec4<f32> [samples, CB, V]   packed class scores; padding lanes are not read into the result
//   labels   u32 [.., V]                  class index; voxel i of the bound samples is labels[first + i]
//   sums     f32 [2 + 5K]                 of loss_finish; a and b of Dice; not read where w_dice is 0
//   dldp     f32 [K, total]               of lovasz_grad; not read where w_lovasz is 0
//   dlogits  vec4<f32> [samples, CB, V]   gradient; padding lanes become 0
// `total` is the voxel count of the whole batch. One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: the softmax Jacobian; the published network detaches the focal factor.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    first: u32,
    total: u32,
    w_ce: f32,
    w_focal: f32,
    w_dice: f32,
    w_lovasz: f32,
    scale: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read> dldp: array<f32>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<vec4<f32>>;

override WG: u32 = 64u;
const LOWEST: f32 = -3.4e38;

fn lanes_of(block: u32) -> vec4<u32> {
    return vec4<u32>(4u * block) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn load(base: u32, block: u32) -> vec4<f32> {
    let x = logits[base + block * params.voxels];
    return select(vec4<f32>(LOWEST), x, lanes_of(block) < vec4<u32>(params.classes));
}

// Maximum of a voxel's scores, and Σ exp(x - max).
fn statistics(base: u32, blocks: u32) -> vec2<f32> {
    var top = vec4<f32>(LOWEST);
    for (var b = 0u; b < blocks; b += 1u) {
        top = max(top, load(base, b));
    }
    let peak = max(max(top.x, top.y), max(top.z, top.w));
    var sum = vec4<f32>(0.0);
    for (var b = 0u; b < blocks; b += 1u) {
        sum += exp(load(base, b) - peak);
    }
    return vec2<f32>(peak, sum.x + sum.y + sum.z + sum.w);
}

fn one_hot(block: u32, label: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), lanes_of(block) == vec4<u32>(label));
}

// Gradient to the probabilities of one block; 0 in padding lanes.
fn outer(block: u32, voxel: u32, label: u32) -> vec4<f32> {
    var g = vec4<f32>(0.0);
    let lanes = min(4u, params.classes - 4u * block);
    for (var lane = 0u; lane < lanes; lane += 1u) {
        let k = 4u * block + lane;
        var value = 0.0;
        if params.w_dice != 0.0 && label < params.classes {
            let columns = 2u + 3u * params.classes;
            let hit = select(0.0, sums[columns + params.classes + k], k == label);
            value = params.w_dice * (sums[columns + k] - hit);
        }
        if params.w_lovasz != 0.0 {
            value += params.w_lovasz * dldp[k * params.total + voxel];
        }
        g[lane] = value;
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
        let stats = statistics(base, blocks);

        var mean = 0.0;
        var hit = 0.0;
        for (var b = 0u; b < blocks; b += 1u) {
            let p = exp(load(base, b) - stats.x) / stats.y;
            mean += dot(p, outer(b, voxel, label));
            hit += dot(p, one_hot(b, label));
        }
        var factor = 0.0;
        if label < params.classes {
            factor = (params.w_ce + params.w_focal * (1.0 - hit) * (1.0 - hit)) / f32(params.total);
        }
        for (var b = 0u; b < blocks; b += 1u) {
            let p = exp(load(base, b) - stats.x) / stats.y;
            let g = p * (outer(b, voxel, label) - mean) + factor * (p - one_hot(b, label));
            dlogits[base + b * params.voxels] = params.scale * g;
        }
    }
}
