// Prefix sums inside tiles, in place, the downward half of a scan; TILE = WG * ITEMS (4096 at the defaults).
//   data[i] <- carry[tile] + Σ_(j < i in the tile) data[j]
//
// Bindings
//   data   u32 [count]               addends, then their prefix sums
//   carry  u32 [ceil(count / TILE)]  the exclusive scan of the tiles' sums; not read where use_carry is 0 (bind any other buffer)
// One workgroup: one tile. One thread: ITEMS consecutive values, read twice; in between each thread adds up those before it.
// Dispatch: `tiles` = ceil(count / TILE) groups, folded into x and y (group index = x + y * groups.x).
// The recipe of a whole scan stands in scan_reduce.wgsl.
// Source: reduce-then-scan, Merrill & Grimshaw 2009.

struct Params {
    count: u32,
    tiles: u32,
    use_carry: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> data: array<u32>;
@group(0) @binding(2) var<storage, read> carry: array<u32>;

override WG: u32 = 128u;
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
        begin = min(params.count, (tile * WG + local) * ITEMS);
    }
    let end = min(begin + ITEMS, params.count);
    var sum = 0u;
    for (var i = begin; i < end; i += 1u) {
        sum += data[i];
    }
    var before = count_lanes(sum, local, local);
    if params.use_carry != 0u && tile < params.tiles {
        before += carry[tile];
    }
    for (var i = begin; i < end; i += 1u) {
        let value = data[i];
        data[i] = before;
        before += value;
    }
}
