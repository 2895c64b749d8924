// Moves (key, payload) pairs to their places in a radix sort's pass, equal digits in their old order:
//   target = offsets[digit, tile] + rank of the pair among those of its digit in its tile; digit = (key >> shift) & 255
//
// Bindings
//   keys         u32 [count]
//   payload      u32 [count]
//   offsets      u32 [256, tiles]   the exclusive scan of radix_histogram's counts, of the same `tile`
//   keys_out     u32 [count]
//   payload_out  u32 [count]
// One workgroup: one tile. One thread: tile / THREADS consecutive pairs, which keeps the order. Each thread counts its digits in
// a column of its own in workgroup memory, two 16-bit counters a word (digits d and d + 128), exactly 16 KiB at 32 threads; an
// exclusive scan over the threads of each digit makes the counters ranks; then each thread places its pairs.
// Dispatch: `tiles` = ceil(count / tile) groups, folded into x and y (group index = x + y * groups.x).
// `tile` is a multiple of THREADS and at most 65,535. The recipe of a whole sort stands in radix_histogram.wgsl.
// Source: least-significant-digit radix sort, Satish et al. 2009.

struct Params {
    count: u32,
    shift: u32,
    tiles: u32,
    tile: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> payload: array<u32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> keys_out: array<u32>;
@group(0) @binding(5) var<storage, read_write> payload_out: array<u32>;

override THREADS: u32 = 32u;
const DIGITS: u32 = 256u;
const WORDS: u32 = 128u;

var<workgroup> ranks: array<u32, WORDS * THREADS>;

fn digit_of(key: u32) -> u32 {
    return (key >> params.shift) & (DIGITS - 1u);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = group.x + group.y * groups.x;
    let items = params.tile / THREADS;
    var begin = params.count;
    if tile < params.tiles {
        begin = min(params.count, tile * params.tile + local * items);
    }
    let end = min(begin + items, params.count);

    for (var word = 0u; word < WORDS; word += 1u) {
        ranks[word * THREADS + local] = 0u;
    }
    for (var i = begin; i < end; i += 1u) {
        let digit = digit_of(keys[i]);
        ranks[digit % WORDS * THREADS + local] += 1u << (digit / WORDS * 16u);
    }
    workgroupBarrier();

    for (var word = local; word < WORDS; word += THREADS) {
        var before = 0u;
        for (var t = 0u; t < THREADS; t += 1u) {
            let counted = ranks[word * THREADS + t];
            ranks[word * THREADS + t] = before;
            before += counted;
        }
    }
    workgroupBarrier();

    for (var i = begin; i < end; i += 1u) {
        let key = keys[i];
        let digit = digit_of(key);
        let half = digit / WORDS * 16u;
        let slot = digit % WORDS * THREADS + local;
        let packed = ranks[slot];
        ranks[slot] = packed + (1u << half);
        let place = offsets[digit * params.tiles + tile] + ((packed >> half) & 0xffffu);
        keys_out[place] = key;
        payload_out[place] = payload[i];
    }
}
