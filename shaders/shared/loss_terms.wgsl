// The losses of classes: what each voxel or class adds, the gradient that follows, the weighted sum. A loss of single voxels or of
// overlap stands here alone.
//   nll = -log p_t and miss = 1 - p_t, of a voxel's label t
//   voxel losses: cross-entropy nll | focal miss² nll
//   the gradient of their weighted sum to the logits is factor (p - t), the focal factor held constant
//   losses of overlap, 1 - mean gain of the classes: Dice, gain (2 Σ p t + s) / (Σ p + Σ t + s)
//   slopes (a, b) of their weighted sum: d loss / d p[k] = a[k] - b[k] t[k]
//   total = Σ weight times loss
//
// Asks nothing of the importing file.
// Source: the definitions; focal loss as in Lin et al. 2017 with gamma 2.

// Members as Rust names them.
struct Weights { w_ce: f32, w_focal: f32, w_dice: f32, w_lovasz: f32 }

// One lane a loss of single voxels; Rust counts as many.
alias VoxelLosses = vec2<f32>;
const VOXEL_LOSSES: u32 = 2u;

// Columns of a row of partial sums that are not of one class: voxel losses, then what is left out.
alias Heads = vec3<f32>;
const HEADS: u32 = 3u;

fn voxel_losses(nll: f32, miss: f32) -> VoxelLosses {
    return VoxelLosses(nll, miss * miss * nll);
}

fn voxel_factor(w: Weights, miss: f32) -> f32 {
    return w.w_ce + w.w_focal * miss * miss;
}

// Sums of a class over the batch, and s.
struct Overlap { both: f32, predicted: f32, labelled: f32, smoothing: f32 }

// One element a loss of overlap; Rust counts as many.
const OVERLAP_LOSSES: u32 = 1u;
alias OverlapLosses = array<f32, OVERLAP_LOSSES>;

// Numerator and denominator of the Dice gain.
fn dice_ratio(o: Overlap) -> vec2<f32> {
    return vec2<f32>(2.0 * o.both + o.smoothing, o.predicted + o.labelled + o.smoothing);
}

fn overlap_gains(o: Overlap) -> OverlapLosses {
    let of_dice = dice_ratio(o);
    return OverlapLosses(of_dice.x / of_dice.y);
}

// Of a class that has this share in the mean.
fn overlap_slopes(w: Weights, o: Overlap, share: f32) -> vec2<f32> {
    let of_dice = dice_ratio(o);
    return w.w_dice * (share / of_dice.y * vec2<f32>(of_dice.x / of_dice.y, 2.0));
}

fn any_overlap(w: Weights) -> bool {
    return w.w_dice != 0.0;
}

fn total_loss(w: Weights, voxel: VoxelLosses, overlap: OverlapLosses, jaccard: f32) -> f32 {
    return w.w_ce * voxel.x + w.w_focal * voxel.y + w.w_dice * overlap[0] + w.w_lovasz * jaccard;
}
