// The class of the largest score of each voxel; the lowest class of equals.
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits  vec4<f32> [samples, CB, V]   packed class scores or probabilities; padding lanes are never chosen
//   labels  u32 [.., V]                  class index; voxel i of the bound samples goes to labels[first + i]
// One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: the definition.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;

override WG: u32 = 64u;

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
        var best = 0u;
        var highest = logits[base].x;
        for (var b = 0u; b < blocks; b += 1u) {
            let x = logits[base + b * params.voxels];
            let k = 4u * b;
            if x.x > highest {
                highest = x.x;
                best = k;
            }
            if k + 1u < params.classes && x.y > highest {
                highest = x.y;
                best = k + 1u;
            }
            if k + 2u < params.classes && x.z > highest {
                highest = x.z;
                best = k + 2u;
            }
            if k + 3u < params.classes && x.w > highest {
                highest = x.w;
                best = k + 3u;
            }
        }
        labels[params.first + i] = best;
    }
}
