// Lovász-softmax of one class from its sorted errors. At sorted position i, with c_i foreground voxels up to and
// with i, of G in all:
//   I = G - c_i, U = G + (i + 1 - c_i)
//   growth of the Jaccard loss: foreground, or i = 0 (where 1 - I / U = 1 / U): 1 / U; background: I / (U (U - 1))
//   dldp[class, voxel] = sign * growth / K, sign = -1 for foreground, 1 for background, 0 where the error is 0
//   partial loss = Σ error * growth
// Left-out voxels (key 0x3FFFFFFF, sorted last) get 0. I and U are integers, so that nothing cancels.
//
// Bindings (count voxels, K classes)
//   keys      u32 [count]        sorted keys of lovasz_keys
//   payload   u32 [count]        sorted with them: voxel index | foreground << 31 | foreground of the next class << 30;
//                                bit `bit` is this class's: 31, or 30 for the next class
//   before    u32 [tiles + 1]    exclusive scan of lovasz_count's counts, of the same WG and ITEMS; the last is G
//   dldp      f32 [K, count]     written at class * count + voxel
//   partials  f32 [K, tiles]     written at class * tiles + tile
// One workgroup: one tile of TILE = WG * ITEMS pairs (2048 at the defaults). One thread: ITEMS consecutive pairs, read twice.
// Dispatch: `tiles` = ceil(count / TILE) groups, folded into x and y (group index = x + y * groups.x).
// Source: Berman et al. 2018; the recipe of the whole loss stands in lovasz_keys.wgsl.

struct Params {
    count: u32,
    tiles: u32,
    classes: u32,
    class_id: u32,
    bit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> payload: array<u32>;
@group(0) @binding(3) var<storage, read> before: array<u32>;
@group(0) @binding(4) var<storage, read_write> dldp: array<f32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

override WG: u32 = 64u;
override ITEMS: u32 = 32u;
const ONE: u32 = 0x3f800000u;
const LEFT_OUT: u32 = 0x3fffffffu;
const VOXEL: u32 = 0x3fffffffu;

// import tile_counts

var<workgroup> losses: array<f32, WG>;

fn growth_at(i: u32, foreground: bool, seen: u32, all: u32) -> f32 {
    let both = f32(all - seen);
    let either = all + (i + 1u - seen);
    return select(both / f32(max(either, 2u) - 1u), 1.0, foreground || i == 0u) / f32(either);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = group.x + group.y * groups.x;
    var begin = params.count;
    var seen = 0u;
    if tile < params.tiles {
        begin = min(params.count, (tile * WG + local) * ITEMS);
        seen = before[tile];
    }
    let end = min(begin + ITEMS, params.count);
    var own = 0u;
    for (var i = begin; i < end; i += 1u) {
        own += (payload[i] >> params.bit) & 1u;
    }
    seen += count_lanes(own, local, local);
    let all = before[params.tiles];
    let share = 1.0 / f32(params.classes);
    var loss = 0.0;
    for (var i = begin; i < end; i += 1u) {
        let item = payload[i];
        let key = keys[i];
        let hit = (item >> params.bit) & 1u;
        seen += hit;
        var slope = 0.0;
        if key < LEFT_OUT {
            let growth = growth_at(i, hit == 1u, seen, all);
            loss += bitcast<f32>(ONE - key) * growth;
            if key < ONE {
                slope = select(growth, -growth, hit == 1u) * share;
            }
        }
        dldp[params.class_id * params.count + (item & VOXEL)] = slope;
    }
    losses[local] = loss;
    workgroupBarrier();

    if local == 0u && tile < params.tiles {
        var sum = 0.0;
        for (var t = 0u; t < WG; t += 1u) {
            sum += losses[t];
        }
        partials[params.class_id * params.tiles + tile] = sum;
    }
}
