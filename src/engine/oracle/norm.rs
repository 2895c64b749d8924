//! Instance normalisation with affine weight and bias, biased variance, statistics of the current input.

use super::Tensor;

/// Mean and 1/√(variance + eps) of each (sample, channel) plane.
fn statistics(x: &Tensor, eps: f64) -> Vec<(f64, f64)> {
    let voxels = x.shape.voxels();
    x.data
        .chunks(voxels)
        .map(|plane| {
            let mean = plane.iter().sum::<f64>() / voxels as f64;
            let variance = plane.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / voxels as f64;
            (mean, 1.0 / (variance + eps).sqrt())
        })
        .collect()
}

/// `y = gamma · (x - mean) / √(variance + eps) + beta` over each (sample, channel).
pub fn instance_norm_forward(x: &Tensor, gamma: &[f64], beta: &[f64], eps: f64) -> Tensor {
    let voxels = x.shape.voxels();
    let mut y = x.clone();
    for (p, (mean, rstd)) in statistics(x, eps).into_iter().enumerate() {
        let c = p % x.shape.c;
        for v in &mut y.data[p * voxels..(p + 1) * voxels] {
            *v = gamma[c] * (*v - mean) * rstd + beta[c];
        }
    }
    y
}

/// Gradients (dx, dgamma, dbeta) of [`instance_norm_forward`].
pub fn instance_norm_backward(
    x: &Tensor,
    gamma: &[f64],
    eps: f64,
    dy: &Tensor,
) -> (Tensor, Vec<f64>, Vec<f64>) {
    let voxels = x.shape.voxels();
    let mut dx = Tensor::zeros(x.shape);
    let mut dgamma = vec![0.0; x.shape.c];
    let mut dbeta = vec![0.0; x.shape.c];
    for (p, (mean, rstd)) in statistics(x, eps).into_iter().enumerate() {
        let c = p % x.shape.c;
        let plane = p * voxels..(p + 1) * voxels;
        let normalised: Vec<f64> =
            x.data[plane.clone()].iter().map(|v| (v - mean) * rstd).collect();
        let grad = &dy.data[plane.clone()];
        let sum: f64 = grad.iter().sum();
        let sum_xhat: f64 = grad.iter().zip(&normalised).map(|(g, h)| g * h).sum();
        dgamma[c] += sum_xhat;
        dbeta[c] += sum;
        let count = voxels as f64;
        for ((out, g), h) in dx.data[plane].iter_mut().zip(grad).zip(&normalised) {
            *out = gamma[c] * rstd * (g - sum / count - h * sum_xhat / count);
        }
    }
    (dx, dgamma, dbeta)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_tensor, dot, random, tensor};
    use super::*;

    const EPS: f64 = 1e-5;

    #[test]
    fn planes_have_the_asked_mean_and_deviation() {
        let x = tensor(2, 3, [3, 5, 7], 1);
        let y = instance_norm_forward(&x, &[2.0; 3], &[0.5; 3], 0.0);
        for plane in y.data.chunks(105) {
            let mean = plane.iter().sum::<f64>() / 105.0;
            let variance = plane.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 105.0;
            assert!((mean - 0.5).abs() < 1e-12 && (variance - 4.0).abs() < 1e-12);
        }
    }

    #[test]
    fn gradients_match_central_differences() {
        for (n, c, spatial) in [(2, 3, [3, 2, 5]), (1, 5, [1, 3, 2]), (1, 2, [1, 1, 1])] {
            let x = tensor(n, c, spatial, 2);
            let (gamma, beta) = (random(c, 3), random(c, 4));
            let dy = tensor(n, c, spatial, 5);
            let (dx, dgamma, dbeta) = instance_norm_backward(&x, &gamma, EPS, &dy);
            let loss = |x: &Tensor, gamma: &[f64], beta: &[f64]| {
                dot(&instance_norm_forward(x, gamma, beta, EPS).data, &dy.data)
            };
            check_tensor("dx", &x, &dx, |x| loss(x, &gamma, &beta));
            check("dgamma", &gamma, &dgamma, |g| loss(&x, g, &beta));
            check("dbeta", &beta, &dbeta, |b| loss(&x, &gamma, b));
        }
    }
}
