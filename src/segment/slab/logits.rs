//! Mean logits on the case's own grid: for measurements and comparisons; segmenting never holds them.

use super::clock::Clock;
use super::resize::At;
use super::sweep::{Summed, Sweep};
use crate::base::Result;
use crate::engine::exec::{Recording, storage};
use crate::engine::shape::LANES;
use crate::imaging::Tap;

impl Sweep<'_> {
    /// Goes over the whole case and gives the weighted mean logits of all windows, K, D, H, W.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn logits(mut self) -> Result<Vec<f32>> {
        let [depth, rows, columns] = self.case().shape;
        let (plane, classes) = (rows * columns, self.network().classes());
        let blocks = classes.div_ceil(LANES);
        let gpu = self.network().gpu();
        let out = storage(gpu, "mean logits", (16 * blocks * plane) as u64)?;
        let mut logits = vec![0.0; classes * depth * plane];
        let mut clock = Clock::start();
        for z in 0..depth {
            while self.finished() <= z {
                self.advance(&mut clock)?;
            }
            let mut recording = Recording::new(gpu, "mean logits");
            for block in 0..blocks {
                let target = At { buffer: &out, first: block * plane };
                let of = Summed { block, mirror: None };
                self.between(&mut recording, Tap { low: z as u32, share: 0.0 }, of, target)?;
            }
            recording.submit()?;
            let packed = gpu.download(&out, 0, (16 * blocks * plane) as u64)?;
            let packed: Vec<[f32; LANES]> = bytemuck::pod_collect_to_vec(&packed);
            for class in 0..classes {
                let block = &packed[class / LANES * plane..][..plane];
                let target = &mut logits[(class * depth + z) * plane..][..plane];
                target.iter_mut().zip(block).for_each(|(x, lanes)| *x = lanes[class % LANES]);
            }
        }
        Ok(logits)
    }
}
