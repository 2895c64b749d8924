// Sums of tiles, the upward half of a scan: sums[tile] = Σ data[tile * TILE ..], TILE = WG * ITEMS (4096 at the defaults).
//
// Bindings
//   data  u32 [count]               addends
//   sums  u32 [ceil(count / TILE)]  one sum a tile
// One workgroup: one tile. One thread: ITEMS consecutive values; thread 0 then adds up the workgroup.
// Dispatch: `tiles` = ceil(count / TILE) groups, folded into x and y (group index = x + y * groups.x).
//
// A scan of n_0 values in place, any n_0 up to 2^27 (sums must stay under 2^32):
//   level 0 is the data; while n_l > TILE: scan_reduce level l -> level l+1, n_(l+1) = ceil(n_l / TILE)
//   scan_apply on the last level with use_carry 0, then on each lower level with carry = the level above, use_carry 1.
// Scratch: one u32 buffer of n_l for each level above 0 (2^27 values: 32,768 and 8).
// Source: reduce-then-scan, Merrill & Grimshaw 2009.

struct Params {
    count: u32,
    tiles: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> data: array<u32>;
@group(0) @binding(2) var<storage, read_write> sums: array<u32>;

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
    let total = count_lanes(sum, local, select(0u, WG, local == 0u));
    if local == 0u && tile < params.tiles {
        sums[tile] = total;
    }
}
