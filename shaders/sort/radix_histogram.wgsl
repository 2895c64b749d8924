// How often each digit occurs in each tile of the keys, the first step of a radix sort's pass: digit = (key >> shift) & 255.
//
// Bindings
//   keys    u32 [count]
//   counts  u32 [256, tiles]   digit-major, so that its exclusive scan is where each tile's run of each digit begins
// One workgroup: one tile of `tile` keys. One thread: every WG-th key of the tile, counted by integer atomics in
// workgroup memory.
// Dispatch: `tiles` = ceil(count / tile) groups, folded into x and y (group index = x + y * groups.x).
//
// A stable sort of (key, payload) pairs by the low 8 * P bits, for pass = 0..P, shift = 8 * pass:
//   radix_histogram keys -> counts; exclusive scan of the 256 * tiles counts in place (scan_reduce.wgsl);
//   radix_scatter keys, payload -> the other pair of buffers; swap the pairs.
// `tile` is a multiple of radix_scatter's THREADS and at most 65,535. Each tile costs as much as about 4096 keys besides its own:
// 16,384 on software drivers (2.5 times as fast as 2048 on llvmpipe), 2048 to 4096 where thousands of threads need work.
// Scratch: a second pair of [count] buffers, [256 * tiles] counts, the scan's levels. After an even P the result is
// where it began.
// Source: least-significant-digit radix sort, Satish et al. 2009.

struct Params {
    count: u32,
    shift: u32,
    tiles: u32,
    tile: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

override WG: u32 = 64u;
const DIGITS: u32 = 256u;

var<workgroup> bins: array<atomic<u32>, DIGITS>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    for (var d = local; d < DIGITS; d += WG) {
        atomicStore(&bins[d], 0u);
    }
    workgroupBarrier();

    let tile = group.x + group.y * groups.x;
    var begin = params.count;
    if tile < params.tiles {
        begin = tile * params.tile;
    }
    let end = min(begin + params.tile, params.count);
    for (var i = begin + local; i < end; i += WG) {
        atomicAdd(&bins[(keys[i] >> params.shift) & (DIGITS - 1u)], 1u);
    }
    workgroupBarrier();

    if tile < params.tiles {
        for (var d = local; d < DIGITS; d += WG) {
            counts[d * params.tiles + tile] = atomicLoad(&bins[d]);
        }
    }
}
