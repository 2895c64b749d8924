// Sort keys of the Lovász-softmax errors of one class c: e = |[label = c] - p_c|, p = softmax(x)
//   key = bits(1.0) - bits(e), ascending where e descends (30 bits: 0 is e = 1, 0x3F800000 is e = 0); left-out voxels 0x3FFFFFFF
//   payload = voxel index | [label = c] << 31 | [label = c + 1] << 30, without the flags for left-out voxels
// Left out are the voxels of the ignored label and those whose label is no class (label >= K).
//
// Bindings (V voxels a sample, K <= 256 classes, CB = ceil(K / 4) blocks, total voxels of the batch <= 2^30)
//   logits   vec4<f32> [samples, CB, V]   packed class scores; padding lanes are not read into the result
//   labels   u32 [total]                  class index; voxel i of the bound samples is labels[first + i]
//   keys     u32 [total]                  written at first + i
//   payload  u32 [total]                  written at first + i
// `ignore` is the ignored label, 0xFFFFFFFF for none. One thread: one voxel.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
//
// The whole loss, for each class c in turn, key buffers and scratch reused:
//   1. lovasz_keys (once for each binding of samples) -> keys, payload
//   2. stable radix sort by 32 bits (4 passes, radix_histogram.wgsl): the sorted pairs are back in keys, payload
//   3. lovasz_count payload -> counts [tiles + 1], bit 31; exclusive scan of those in place (scan_reduce.wgsl)
//   4. lovasz_grad keys, payload, counts -> dldp [c, total], partials [c, tiles], bit 31
// Of two classes both have the same errors: steps 1 and 2 serve once, for class 0, and class 1 takes steps 3 and 4 with bit 30.
// then once lovasz_finish partials -> lovasz [K]; loss_finish and loss_grad take it from there.
// Source: Berman et al. 2018, The Lovász-Softmax loss.

struct Params {
    samples: u32,
    voxels: u32,
    classes: u32,
    first: u32,
    class_id: u32,
    ignore: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> payload: array<u32>;

override WG: u32 = 64u;
const ONE: u32 = 0x3f800000u;
const LEFT_OUT: u32 = 0x3fffffffu;

// import scores

// (probability of the class, probability of all others)
fn probability(base: u32, blocks: u32) -> vec2<f32> {
    let peak = peak_of(base, blocks);
    var own = 0.0;
    var others = 0.0;
    for (var b = 0u; b < blocks; b += 1u) {
        let e = exp(load(base, b) - peak);
        let mine = select(vec4<f32>(0.0), vec4<f32>(1.0), lanes_of(b) == vec4<u32>(params.class_id));
        own += dot(e, mine);
        others += dot(e, vec4<f32>(1.0) - mine);
    }
    return vec2<f32>(own, others) / (own + others);
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
        let p = probability(base, blocks);
        let kept = label < params.classes && label != params.ignore;
        let foreground = kept && label == params.class_id;
        let next = kept && label == params.class_id + 1u;
        // 1 - p_c is summed from the other classes, which keeps small errors exact.
        let error = clamp(select(p.x, p.y, foreground), 0.0, 1.0);
        keys[voxel] = select(ONE - bitcast<u32>(error), LEFT_OUT, !kept);
        payload[voxel] = voxel | select(0u, 0x80000000u, foreground) | select(0u, 0x40000000u, next);
    }
}
