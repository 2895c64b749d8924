// Adds up what a workgroup's lanes summed over a chunk of voxels and writes it to the chunk's row of partial sums:
//   heads, H of them | H+k both | H+K+k predicted | H+2K+k labelled, for K classes or regions, of which a workgroup has a block of four
//
// Asks of the importing file: the binding partials, f32 [rows, H + 3K]; WG, at least 16.
// As many lanes as there are sums add up the workgroup's in a fixed order. Every lane calls, once.
// Source: two-pass reduction without atomics.

// import loss_terms

const SUMS: u32 = HEADS + 12u;

var<workgroup> scratch: array<f32, SUMS * WG>;

struct Sums { heads: Heads, both: vec4<f32>, predicted: vec4<f32>, labelled: vec4<f32> }

// Where a workgroup writes: not at all unless `real`; the heads are those of block 0.
struct Row { row: u32, block: u32, classes: u32, real: bool }

fn write_row(sums: Sums, to: Row, local: u32) {
    for (var head = 0u; head < HEADS; head += 1u) {
        scratch[head * WG + local] = sums.heads[head];
    }
    for (var lane = 0u; lane < 4u; lane += 1u) {
        scratch[(HEADS + lane) * WG + local] = sums.both[lane];
        scratch[(HEADS + 4u + lane) * WG + local] = sums.predicted[lane];
        scratch[(HEADS + 8u + lane) * WG + local] = sums.labelled[lane];
    }
    workgroupBarrier();

    if local < SUMS && to.real {
        var sum = 0.0;
        for (var t = 0u; t < WG; t += 1u) {
            sum += scratch[local * WG + t];
        }
        let start = to.row * (HEADS + 3u * to.classes);
        if local < HEADS {
            if to.block == 0u {
                partials[start + local] = sum;
            }
        } else {
            let k = 4u * to.block + (local - HEADS) % 4u;
            if k < to.classes {
                partials[start + HEADS + (local - HEADS) / 4u * to.classes + k] = sum;
            }
        }
    }
}
