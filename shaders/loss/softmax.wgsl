// Softmax over the classes of each voxel: p[k] = exp(x[k] - max) / Σ_j exp(x[j] - max).
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits  vec4<f32> [samples, CB, V]   packed class scores; padding lanes are not read into the result
//   probs   vec4<f32> [samples, CB, V]   probabilities; padding lanes become 0
// One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: the definition, shifted by the maximum against overflow.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> probs: array<vec4<f32>>;

override WG: u32 = 64u;

// import scores

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
        let peak = peak_of(base, blocks);
        // After the loop e is that of the last block, which the last loop takes first.
        var e = vec4<f32>(0.0);
        var sum = vec4<f32>(0.0);
        for (var b = 0u; b < blocks; b += 1u) {
            e = exp(load(base, b) - peak);
            sum += e;
        }
        let total = sum.x + sum.y + sum.z + sum.w;
        for (var b = blocks; b > 0u; b -= 1u) {
            if b < blocks {
                e = exp(load(base, b - 1u) - peak);
            }
            probs[base + (b - 1u) * params.voxels] = e / total;
        }
    }
}
