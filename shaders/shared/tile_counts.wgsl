// Adds up one count a lane over a workgroup, through workgroup memory.
//
// Asks of the importing file: WG. Every lane calls one of the two, once.
// Source: reduce-then-scan, Merrill & Grimshaw 2009.

var<workgroup> scratch: array<u32, WG>;

// The sum of the first `lanes` lanes.
fn count_lanes(own: u32, lane: u32, lanes: u32) -> u32 {
    scratch[lane] = own;
    workgroupBarrier();
    var sum = 0u;
    for (var t = 0u; t < lanes; t += 1u) {
        sum += scratch[t];
    }
    return sum;
}
