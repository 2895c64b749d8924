// Gradient of merge.wgsl to the logits x, from the gradient dy of the merged ones y:
//   dx[j] = dy[0] exp(x[j] - y[0]) of background and unlabelled classes;  dx[k] = dy[k] of the others
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks)
//   logits      vec4<f32> [samples, CB, V]   x, from vector src_base on
//   merged      vec4<f32> [samples, CB, V]   y, from vector y_base on; the first block of each sample is read
//   dmerged     vec4<f32> [samples, CB, V]   dy, from vector d_base on
//   unlabelled  u32 [.., 8]                  as in merge.wgsl
//   dlogits     vec4<f32> [samples, CB, V]   dx, from vector out_base on; padding lanes become 0
// One thread: one voxel, all its classes.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: derivative of the logarithm of a sum of exponentials.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    n0: u32,
    src_base: u32,
    y_base: u32,
    d_base: u32,
    out_base: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> merged: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dmerged: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> unlabelled: array<u32>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<vec4<f32>>;

override WG: u32 = 64u;

// import class_lanes
// import unlabelled

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
        let background = merged[params.y_base + base].x;
        let slope = dmerged[params.d_base + base].x;
        for (var b = 0u; b < blocks; b += 1u) {
            let lanes = lanes_of(b);
            let joins = hidden(sample, b) | (lanes == vec4<u32>(0u));
            let own = dmerged[params.d_base + base + b * params.voxels];
            // A joining score is at most the background's; others would overflow before they are not taken.
            let share = exp(min(logits[params.src_base + base + b * params.voxels] - background, vec4<f32>(0.0)));
            let dx = select(own, slope * share, joins);
            dlogits[params.out_base + base + b * params.voxels] = select(vec4<f32>(0.0), dx, lanes < vec4<u32>(params.classes));
        }
    }
}
