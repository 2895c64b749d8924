// The loss of each class from the partial sums of lovasz_grad: lovasz[k] = Σ_tile partials[k, tile], in a fixed order.
//
// Bindings (K classes)
//   partials  f32 [K, tiles]
//   lovasz    f32 [K]
// One workgroup: one class. One thread: every WG-th tile; then a tree over the workgroup.
// Dispatch: K groups, folded into x and y (group index = x + y * groups.x). WG is a power of two.
// Source: Berman et al. 2018; the recipe of the whole loss stands in lovasz_keys.wgsl.

struct Params {
    classes: u32,
    tiles: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> lovasz: array<f32>;

override WG: u32 = 128u;

// import tree_sum

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let k = group.x + group.y * groups.x;
    var sum = 0.0;
    if k < params.classes {
        for (var tile = local; tile < params.tiles; tile += WG) {
            sum += partials[k * params.tiles + tile];
        }
    }
    let total = tree_sum(sum, local);
    if local == 0u && k < params.classes {
        lovasz[k] = total;
    }
}
