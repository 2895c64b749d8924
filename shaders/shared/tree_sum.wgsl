// Sum of one number a lane over a workgroup, in a tree through workgroup memory: the order is fixed, results repeat to the bit.
//
// Asks of the importing file: WG, a power of two. Every lane calls; between two calls there is a barrier.
// Source: two-pass reduction without atomics.

var<workgroup> scratch: array<f32, WG>;

fn tree_sum(value: f32, lane: u32) -> f32 {
    scratch[lane] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            scratch[lane] += scratch[lane + half];
        }
        workgroupBarrier();
    }
    return scratch[0];
}
