// Foreground voxels in each tile of the sorted pairs; TILE = WG * ITEMS (2048 at the defaults).
//
// Bindings
//   payload  u32 [count]      sorted; bit `bit` marks the class's foreground: 31, or 30 for the next class
//   counts   u32 [tiles + 1]  one a tile, and a 0 after the last, so that the exclusive scan ends with the total
// One workgroup: one tile. One thread: every WG-th pair of the tile; thread 0 then adds up the workgroup.
// Dispatch: tiles + 1 groups with `tiles` = ceil(count / TILE), folded into x and y (group index = x + y * groups.x).
// Then the exclusive scan of the tiles + 1 counts (scan_reduce.wgsl) and lovasz_grad with the same WG and ITEMS.
// Source: Berman et al. 2018; the recipe of the whole loss stands in lovasz_keys.wgsl.

struct Params {
    count: u32,
    tiles: u32,
    bit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> payload: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

override WG: u32 = 64u;
override ITEMS: u32 = 32u;

// import tile_counts

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = group.x + group.y * groups.x;
    var begin = params.count;
    if tile < params.tiles {
        begin = tile * WG * ITEMS;
    }
    let end = min(begin + WG * ITEMS, params.count);
    var sum = 0u;
    for (var i = begin + local; i < end; i += WG) {
        sum += (payload[i] >> params.bit) & 1u;
    }
    let total = count_lanes(sum, local, select(0u, WG, local == 0u));
    if local == 0u && tile <= params.tiles {
        counts[tile] = total;
    }
}
