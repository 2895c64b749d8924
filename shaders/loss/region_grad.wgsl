// Gradient of the losses of regions to the logits, p = 1 / (1 + exp(-x)), t = 1 where the voxel's label belongs to the region:
//   dx[r] = scale (w_ce (p - t) / counted + (a[r] - b[r] t) p (1 - p))
// With SCALED, scale is that of the loss (state word 0) times params.scale, so that no gradient vanishes in f16.
// 0 where the label is beyond the table, and with PARTIAL in regions that the sample does not label.
//
// Bindings (V voxels a sample, R <= 32 regions, CB = ceil(R / 4) blocks)
//   logits      vec4<f32> [samples, CB, V]   packed scores, from vector src_base on; padding lanes are not read into the result
//   labels      u32 [.., V]                  label index; voxel i of the bound samples is labels[first + i]
//   table       u32 [entries]                bit r of a label index: it belongs to region r
//   unlabelled  u32 [.., 8]                  bit r of a sample's first word: it does not label region r; read with PARTIAL
//   dice        vec4<f32> [2 CB + 1]         of loss_finish: a, then b, last counted
//   state       f32 [8]                      of loss_scale; read with SCALED
//   dlogits     vec4<f32> [samples, CB, V]   gradient, from vector out_base on; padding lanes become 0
// One thread: one voxel, all its regions.
// Dispatch: ceil(samples * V / WG) groups, folded into x and y (group index = x + y * groups.x).
// Source: derivatives of the sums of region_partial.wgsl and loss_finish.wgsl.

struct Params {
    samples: u32,
    voxels: u32,
    regions: u32,
    entries: u32,
    first: u32,
    out_base: u32,
    w_ce: f32,
    scale: f32,
    src_base: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> unlabelled: array<u32>;
@group(0) @binding(5) var<storage, read> dice: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> state: array<f32>;
@group(0) @binding(7) var<storage, read_write> dlogits: array<vec4<f32>>;

override PARTIAL: bool = false;
override SCALED: bool = false;
override WG: u32 = 64u;

// import regions

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    if i < params.samples * params.voxels {
        let blocks = (params.regions + 3u) / 4u;
        let base = i / params.voxels * blocks * params.voxels + i % params.voxels;
        let label = labels[params.first + i];
        let known = counted((params.first + i) / params.voxels, label);
        var inside = 0u;
        if known != 0u {
            inside = table[label];
        }
        var scale = params.scale;
        if SCALED {
            scale = scale * state[0];
        }
        let share = params.w_ce / dice[2u * blocks].x;
        for (var b = 0u; b < blocks; b += 1u) {
            let x = logits[params.src_base + base + b * params.voxels];
            let e = exp(-abs(x));
            let positive = x >= vec4<f32>(0.0);
            let p = select(e, vec4<f32>(1.0), positive) / (vec4<f32>(1.0) + e);
            // 1 - p of its own keeps the digits of small differences
            let rest = select(vec4<f32>(1.0), e, positive) / (vec4<f32>(1.0) + e);
            let hit = bits_of(inside, b) == vec4<u32>(1u);
            let slope = dice[b] - select(vec4<f32>(0.0), dice[blocks + b], hit);
            let both = share * select(p, -rest, hit) + slope * p * rest;
            let counts = bits_of(known, b) == vec4<u32>(1u);
            dlogits[params.out_base + base + b * params.voxels] = select(vec4<f32>(0.0), scale * both, counts);
        }
    }
}
