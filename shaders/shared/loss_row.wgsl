// Adds up what a workgroup's lanes summed over a chunk of voxels and writes it to the chunk's row of partial sums:
//   0, 1, 2 heads | 3+k both | 3+K+k predicted | 3+2K+k labelled, for K classes or regions, of which a workgroup has a block of four
//
// Asks of the importing file: the binding partials, f32 [rows, 3 + 3K]; WG, at least 16.
// Lanes 0..14 add up the workgroup's 15 sums in a fixed order. Every lane calls, once.
// Source: two-pass reduction without atomics.

const SUMS: u32 = 15u;

var<workgroup> scratch: array<f32, SUMS * WG>;

struct Sums { heads: vec3<f32>, both: vec4<f32>, predicted: vec4<f32>, labelled: vec4<f32> }

// Where a workgroup writes: not at all unless `real`; the heads are those of block 0.
struct Row { row: u32, block: u32, classes: u32, real: bool }

fn write_row(sums: Sums, to: Row, local: u32) {
    for (var head = 0u; head < 3u; head += 1u) {
        scratch[head * WG + local] = sums.heads[head];
    }
    for (var lane = 0u; lane < 4u; lane += 1u) {
        scratch[(3u + lane) * WG + local] = sums.both[lane];
        scratch[(7u + lane) * WG + local] = sums.predicted[lane];
        scratch[(11u + lane) * WG + local] = sums.labelled[lane];
    }
    workgroupBarrier();

    if local < SUMS && to.real {
        var sum = 0.0;
        for (var t = 0u; t < WG; t += 1u) {
            sum += scratch[local * WG + t];
        }
        let start = to.row * (3u + 3u * to.classes);
        if local < 3u {
            if to.block == 0u {
                partials[start + local] = sum;
            }
        } else {
            let k = 4u * to.block + (local - 3u) % 4u;
            if k < to.classes {
                partials[start + 3u + (local - 3u) / 4u * to.classes + k] = sum;
            }
        }
    }
}
