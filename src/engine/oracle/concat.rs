//! Concatenation along the channel axis.

use super::Tensor;

/// The channels of `a`, then those of `b`.
pub fn concat_forward(a: &Tensor, b: &Tensor) -> Tensor {
    let shape = a.shape.with_channels(a.shape.c + b.shape.c);
    let voxels = shape.voxels();
    let mut data = Vec::with_capacity(shape.elements());
    for (of_a, of_b) in a.data.chunks(a.shape.c * voxels).zip(b.data.chunks(b.shape.c * voxels)) {
        data.extend_from_slice(of_a);
        data.extend_from_slice(of_b);
    }
    Tensor { shape, data }
}

/// Gradients (da, db) of [`concat_forward`], where `a` has `channels` channels.
pub fn concat_backward(channels: usize, dy: &Tensor) -> (Tensor, Tensor) {
    let voxels = dy.shape.voxels();
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for sample in dy.data.chunks(dy.shape.c * voxels) {
        of_a.extend_from_slice(&sample[..channels * voxels]);
        of_b.extend_from_slice(&sample[channels * voxels..]);
    }
    let rest = dy.shape.c - channels;
    (
        Tensor { shape: dy.shape.with_channels(channels), data: of_a },
        Tensor { shape: dy.shape.with_channels(rest), data: of_b },
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, tensor};
    use super::*;

    #[test]
    fn gradients_match_central_differences() {
        let (a, b) = (tensor(2, 3, [1, 2, 3], 1), tensor(2, 2, [1, 2, 3], 2));
        let dy = tensor(2, 5, [1, 2, 3], 3);
        assert_eq!(concat_forward(&a, &b).at(1, 4, [0, 1, 2]), b.at(1, 1, [0, 1, 2]));
        let (da, db) = concat_backward(3, &dy);
        check_tensor("da", &a, &da, |a| dot(&concat_forward(a, &b).data, &dy.data));
        check_tensor("db", &b, &db, |b| dot(&concat_forward(&a, b).data, &dy.data));
    }
}
