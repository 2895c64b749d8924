// Adds up the rows of loss_partial, or of region_partial, in a fixed order and weighs the losses:
//   counted = max(total - left out, 1)
//   CE = Σ nll / counted, focal = Σ (1 - p_t)² nll / counted
//   losses of overlap, such as dice = 1 - mean_k (2 Σ p t + s) / (Σ p + Σ t + s), over all K classes or over 1..K; 0 where that
//   leaves none
//   lovasz = mean_k lovasz[k]
//   result = [w_ce CE + w_focal focal + w_dice dice + w_lovasz lovasz, CE, focal, dice, lovasz], as loss_terms.wgsl has them
//
// Bindings (K <= 256 classes)
//   partials  f32 [rows, 3 + 3K]   of loss_partial or region_partial
//   lovasz    f32 [K]              losses of the classes, of lovasz_finish; not read where w_lovasz is 0
//   sums      f32 [3 + 3K]         the columns' sums
//   dice      vec4<f32> [2 CB + 1] a, then b, slopes of the weighted losses of overlap to p[k], a[k] - b[k] t[k]; CB = ceil(K / 4); 0 in padding lanes;
//                                  last counted, in each lane
//   result    f32 [5]              total and components: of single voxels, of overlap, lovasz
// `total` is the voxel count of the whole batch, for regions times K; left out is column 2: where nothing is, counted is exactly
// total. One workgroup in all; one thread: every WG-th row, column by column.
// Dispatch: one group. WG is a power of two.
// Source: the definitions.

struct Params {
    weights: Weights,
    @align(16) rows: u32,
    classes: u32,
    include_background: u32,
    total: u32,
    smoothing: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> lovasz: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> dice: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> result: array<f32>;

override WG: u32 = 128u;
const MAX_COLUMNS: u32 = HEADS + 768u;

// import loss_terms
// import tree_sum

var<workgroup> totals: array<f32, MAX_COLUMNS>;

fn first_class() -> u32 {
    return select(1u, 0u, params.include_background != 0u);
}

fn overlap(k: u32) -> Overlap {
    let predicted = totals[HEADS + params.classes + k];
    let labelled = totals[HEADS + 2u * params.classes + k];
    return Overlap(totals[HEADS + k], predicted, labelled, params.smoothing);
}

// (a, b) of class k; 0 for a class that does not take part.
fn coefficients(k: u32) -> vec2<f32> {
    var pair = vec2<f32>(0.0);
    if k >= first_class() && k < params.classes {
        let share = 1.0 / f32(params.classes - first_class());
        pair = overlap_slopes(params.weights, overlap(k), share);
    }
    return pair;
}

fn counted() -> f32 {
    let left_out = u32(totals[VOXEL_LOSSES]);
    return f32(max(params.total - min(left_out, params.total), 1u));
}

fn write_result() {
    var voxel = VoxelLosses(0.0);
    for (var n = 0u; n < VOXEL_LOSSES; n += 1u) {
        voxel[n] = totals[n] / counted();
        result[1u + n] = voxel[n];
    }
    var gains = OverlapLosses();
    for (var k = first_class(); k < params.classes; k += 1u) {
        let own = overlap_gains(overlap(k));
        for (var n = 0u; n < OVERLAP_LOSSES; n += 1u) {
            gains[n] += own[n];
        }
    }
    var overlaps = OverlapLosses();
    for (var n = 0u; n < OVERLAP_LOSSES; n += 1u) {
        if params.classes > first_class() {
            overlaps[n] = 1.0 - gains[n] / f32(params.classes - first_class());
        }
        result[1u + VOXEL_LOSSES + n] = overlaps[n];
    }
    var jaccard = 0.0;
    if params.weights.w_lovasz != 0.0 {
        for (var k = 0u; k < params.classes; k += 1u) {
            jaccard += lovasz[k];
        }
        jaccard /= f32(params.classes);
    }
    result[0] = total_loss(params.weights, voxel, overlaps, jaccard);
    result[1u + VOXEL_LOSSES + OVERLAP_LOSSES] = jaccard;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let columns = HEADS + 3u * params.classes;
    for (var column = 0u; column < columns; column += 1u) {
        var sum = 0.0;
        for (var row = local; row < params.rows; row += WG) {
            sum += partials[row * columns + column];
        }
        let total = tree_sum(sum, local);
        if local == 0u {
            totals[column] = total;
        }
        workgroupBarrier();
    }

    if group.x == 0u && group.y == 0u {
        for (var column = local; column < columns; column += WG) {
            sums[column] = totals[column];
        }
        let blocks = (params.classes + 3u) / 4u;
        for (var block = local; block < blocks; block += WG) {
            let k = 4u * block;
            let c0 = coefficients(k);
            let c1 = coefficients(k + 1u);
            let c2 = coefficients(k + 2u);
            let c3 = coefficients(k + 3u);
            dice[block] = vec4<f32>(c0.x, c1.x, c2.x, c3.x);
            dice[blocks + block] = vec4<f32>(c0.y, c1.y, c2.y, c3.y);
        }
        if local == 0u {
            dice[2u * blocks] = vec4<f32>(counted());
            write_result();
        }
    }
}
