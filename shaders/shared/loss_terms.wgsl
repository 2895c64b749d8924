// The losses of classes: what each voxel adds, the gradient that follows, the weighted sum. A loss of single voxels stands here alone.
//   nll = -log p_t and miss = 1 - p_t, of a voxel's label t
//   voxel losses: cross-entropy nll | focal miss² nll
//   the gradient of their weighted sum to the logits is factor (p - t), the focal factor held constant
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

fn total_loss(w: Weights, voxel: VoxelLosses, dice: f32, lovasz: f32) -> f32 {
    return w.w_ce * voxel.x + w.w_focal * voxel.y + w.w_dice * dice + w.w_lovasz * lovasz;
}
