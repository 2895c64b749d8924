//! Sliding-window inference of one domain of a model.

use super::window::{gaussian, positions};
use crate::data::{Prepared, Volume, prepare};
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::exec::{Pool, Program, Store, caps};
use crate::gpu::Gpu;
use crate::graph::{Graph, Layout, Region, Value};
use crate::nn::{self, Model};
use crate::ops;
use crate::plan::Plan;

/// A domain's network, ready to segment.
pub struct Predictor {
    gpu: Gpu,
    domain: Domain,
    program: Program,
    image: Value,
    logits: Value,
    layout: Layout,
    logits_layout: Layout,
    weights: Vec<f32>,
    /// Step between windows as a share of the patch.
    pub step: f32,
}

impl Predictor {
    /// Builds the forward program of a domain and uploads its weights.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize) -> Result<Self> {
        let plan =
            model.domains.get(domain).ok_or_else(|| Error::Internal("no such domain".into()))?;
        let caps = caps(gpu);
        let mut graph = Graph::sized_for(&caps);
        let layout = Layout::new(1, plan.channels, plan.patch);
        let image = graph.input("image", layout.clone());
        let logits = nn::network(&mut graph, &model.network, domain, image)?;
        let logits = ops::materialise(&mut graph, logits)?;
        graph.keep(logits);
        let steps = Plan::new(&graph, &caps)?;
        let store = Store::new(gpu, graph.params(), false)?;
        for spec in graph.params() {
            let tensor = model
                .weights
                .get(&spec.name)
                .ok_or_else(|| Error::Internal(format!("the model lacks {}", spec.name)))?;
            store.write(gpu, Region::Weights, &spec.name, &tensor.values)?;
        }
        let pool = Pool::new(gpu, [&steps])?;
        let program = Program::new(gpu, &graph, &steps, &[], (&store, &pool))?;
        Ok(Self {
            gpu: gpu.clone(),
            domain: plan.clone(),
            program,
            image,
            logits,
            layout,
            logits_layout: graph.layout(logits)?.clone(),
            weights: gaussian(plan.patch),
            step: 0.5,
        })
    }

    /// The domain's plan.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Labels of a volume on its canonical grid, D, H, W.
    pub fn segment(&self, volume: &Volume) -> Result<Vec<u8>> {
        if volume.channels != self.domain.channels {
            return Err(Error::shape(
                "predict",
                format!(
                    "the image has {} channels, domain {} takes {}",
                    volume.channels, self.domain.name, self.domain.channels
                ),
            ));
        }
        let case = prepare(volume, None, self.domain.spacing, &self.domain.normalisation)?;
        let logits = self.logits(&case)?;
        Ok(case.restore(&logits, self.domain.classes.len()))
    }

    /// Weighted mean logits (K, D, H, W) of all windows over a prepared case.
    pub fn logits(&self, case: &Prepared) -> Result<Vec<f32>> {
        let classes = self.domain.classes.len();
        let patch = self.domain.patch;
        let voxels: usize = case.shape.iter().product();
        let size: usize = patch.iter().product();
        let mut sums = vec![0.0f32; classes * voxels];
        let mut weights = vec![0.0f32; voxels];
        for first in positions(case.shape, patch, self.step) {
            let rows = rows(case.shape, patch, first);
            let mut window = vec![0.0f32; case.channels * size];
            for channel in 0..case.channels {
                for row in &rows {
                    let source = &case.image[channel * voxels + row.case..][..row.count];
                    window[channel * size + row.patch..][..row.count].copy_from_slice(source);
                }
            }
            self.program.write(&self.gpu, self.image, &self.layout.pack(&window)?)?;
            self.program.run(&self.gpu)?;
            let logits = self.logits_layout.unpack(&self.program.read(&self.gpu, self.logits)?)?;
            for row in &rows {
                let weight = &self.weights[row.patch..][..row.count];
                for (sum, w) in weights[row.case..][..row.count].iter_mut().zip(weight) {
                    *sum += w;
                }
                for class in 0..classes {
                    let source = &logits[class * size + row.patch..][..row.count];
                    let target = &mut sums[class * voxels + row.case..][..row.count];
                    for ((sum, value), w) in target.iter_mut().zip(source).zip(weight) {
                        *sum += value * w;
                    }
                }
            }
        }
        for class in sums.chunks_mut(voxels) {
            class.iter_mut().zip(&weights).for_each(|(sum, w)| *sum /= w.max(f32::MIN_POSITIVE));
        }
        Ok(sums)
    }
}

/// A run of voxels along W that window and case share.
struct Row {
    case: usize,
    patch: usize,
    count: usize,
}

/// Where a case is smaller than the window it sits in the middle of it.
fn rows(shape: [usize; 3], patch: [usize; 3], first: [usize; 3]) -> Vec<Row> {
    let inset = [0, 1, 2].map(|axis| patch[axis].saturating_sub(shape[axis]) / 2);
    let count = [0, 1, 2].map(|axis| patch[axis].min(shape[axis]));
    let mut rows = Vec::new();
    for z in 0..count[0] {
        for y in 0..count[1] {
            rows.push(Row {
                case: ((first[0] + z) * shape[1] + first[1] + y) * shape[2] + first[2],
                patch: ((inset[0] + z) * patch[1] + inset[1] + y) * patch[2] + inset[2],
                count: count[2],
            });
        }
    }
    rows
}
