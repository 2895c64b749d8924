//! The Lovász-softmax over all voxels of a batch: for each class keys, sort, count, scan and gradient.

use super::super::common::WORKGROUP;
use super::super::sort::{Scan, Sort};
use super::sums::aligned;
use crate::base::Result;
use crate::engine::graph::{Dispatch, Graph, Layout, Lowering, Scratch, Value, fold};
use crate::engine::shader::KernelKey;

/// Label that the published Lovász-softmax leaves out.
const LEFT_OUT: u32 = 10;

/// Sorted pairs of a tile of the kernels.
const TILE: usize = 2048;

/// The Lovász-softmax of some logits.
pub struct Lovasz<'a> {
    pub logits: &'a Layout,
    pub leaves_out_10: bool,
}

/// LovaszMemory of the node that holds the loss, as the kernels bind it.
struct LovaszMemory {
    /// Gradient to the probabilities of each class.
    dldp: Value,
    partials: Value,
    /// The loss of each class.
    lovasz: Value,
    counts: Value,
    sort: Sort,
    scan: Scan,
}

impl Lovasz<'_> {
    /// Makes room for the gradient to the probabilities.
    pub fn gradient(&self, graph: &mut Graph) -> Value {
        graph.words("lovasz.gradient", self.classes() * self.total())
    }

    fn classes(&self) -> usize {
        self.logits.channels()
    }

    /// Voxels of all samples.
    fn total(&self) -> usize {
        self.logits.n * self.logits.voxels()
    }

    fn tiles(&self) -> usize {
        self.total().div_ceil(TILE)
    }

    /// Working memory: sums of tiles, the loss of each class, counts of foreground, and what sort and scan take.
    pub fn scratch(&self) -> Vec<Scratch> {
        let mut scratch = vec![
            Scratch::new("lovasz.partials", self.classes() * self.tiles()),
            Scratch::new("lovasz.classes", self.classes()),
            Scratch::new("lovasz.counts", self.tiles() + 1),
        ];
        let sort = Sort::scratch(self.total()).into_iter();
        let words = sort.chain(Scan::scratch(self.tiles() + 1));
        scratch.extend(words.map(|words| Scratch::new("lovasz.sort", words)));
        scratch
    }

    fn memory(&self, dldp: Value, scratch: &[Value]) -> Result<LovaszMemory> {
        let [partials, lovasz, counts, rest @ ..] = scratch else {
            return Err(crate::base::Error::Internal(
                "the Lovász loss lacks its working memory".into(),
            ));
        };
        let sort = Sort::new(self.total(), rest)?;
        let levels = &rest[Sort::scratch(self.total()).len()..];
        let scan = Scan::new(self.tiles() + 1, *counts, levels);
        let (partials, lovasz, counts) = (*partials, *lovasz, *counts);
        Ok(LovaszMemory { dldp, partials, lovasz, counts, sort, scan })
    }

    /// The dispatches, and where they write the loss of each class; `scratch` is what [`Lovasz::scratch`] asked for.
    pub fn lower(
        &self,
        lowering: &Lowering<'_>,
        dldp: Value,
        scratch: &[Value],
    ) -> Result<(Vec<Dispatch>, Value)> {
        let memory = self.memory(dldp, scratch)?;
        let mut dispatches = Vec::new();
        for class in 0..self.classes() {
            // two classes have the same errors: the second reuses the first's order, with the other foreground flag
            let reuse = self.classes() == 2 && class == 1;
            if !reuse {
                dispatches.extend(self.keys(lowering, &memory.sort, class)?);
                dispatches.extend(memory.sort.lower(lowering)?);
            }
            let bit = if reuse { 30 } else { 31 };
            dispatches.push(self.count(lowering, &memory, bit)?);
            dispatches.extend(memory.scan.lower(lowering)?);
            dispatches.push(self.class_gradient(lowering, &memory, class, bit)?);
        }
        let groups = fold(self.classes(), lowering.caps)?;
        dispatches.push(
            Dispatch::new("lovász sums", KernelKey::new("lovasz_finish.wgsl"), groups)
                .bind("partials", lowering.whole(memory.partials))
                .bind("lovasz", lowering.whole(memory.lovasz))
                .param("classes", self.classes())
                .param("tiles", self.tiles()),
        );
        Ok((dispatches, memory.lovasz))
    }

    /// The keys of a class's errors.
    fn keys(&self, lowering: &Lowering<'_>, sort: &Sort, class: usize) -> Result<Vec<Dispatch>> {
        let [logits, labels] = lowering.inputs()?;
        let voxels = self.logits.voxels();
        let ignored = if self.leaves_out_10 { LEFT_OUT } else { u32::MAX };
        let mut dispatches = Vec::new();
        for part in lowering.cut_samples(self.logits) {
            let (from, base) = lowering.window(logits, part)?;
            aligned(base)?;
            let vectors = (part.samples * self.logits.blocks() * voxels) as u64;
            let groups = fold((part.samples * voxels).div_ceil(WORKGROUP), lowering.caps)?;
            dispatches.push(
                Dispatch::new("lovász keys", KernelKey::new("lovasz_keys.wgsl"), groups)
                    .bind("logits", from)
                    .bind("labels", lowering.whole(labels))
                    .bind("keys", lowering.whole(sort.keys))
                    .bind("payload", lowering.whole(sort.payload))
                    .param("samples", part.samples)
                    .param("voxels", voxels)
                    .param("classes", self.classes())
                    .param("first", part.n0 * voxels)
                    .param("class_id", class)
                    .param("ignore", ignored as usize)
                    .work(vectors * 40, vectors * 24),
            );
        }
        Ok(dispatches)
    }

    /// Counts the foreground of each tile of the sorted voxels; `bit` of the payload says what is.
    fn count(
        &self,
        lowering: &Lowering<'_>,
        memory: &LovaszMemory,
        bit: usize,
    ) -> Result<Dispatch> {
        let (total, tiles) = (self.total(), self.tiles());
        let groups = fold(tiles + 1, lowering.caps)?;
        Ok(Dispatch::new("lovász count", KernelKey::new("lovasz_count.wgsl"), groups)
            .bind("payload", lowering.whole(memory.sort.payload))
            .bind("counts", lowering.whole(memory.counts))
            .param("count", total)
            .param("tiles", tiles)
            .param("bit", bit)
            .work(total as u64, (total * 4) as u64))
    }

    fn class_gradient(
        &self,
        lowering: &Lowering<'_>,
        memory: &LovaszMemory,
        class: usize,
        bit: usize,
    ) -> Result<Dispatch> {
        let (total, tiles) = (self.total(), self.tiles());
        let groups = fold(tiles, lowering.caps)?;
        Ok(Dispatch::new("lovász gradient", KernelKey::new("lovasz_grad.wgsl"), groups)
            .bind("keys", lowering.whole(memory.sort.keys))
            .bind("payload", lowering.whole(memory.sort.payload))
            .bind("before", lowering.whole(memory.counts))
            .bind("dldp", lowering.whole(memory.dldp))
            .bind("partials", lowering.whole(memory.partials))
            .param("count", total)
            .param("tiles", tiles)
            .param("classes", self.classes())
            .param("class_id", class)
            .param("bit", bit)
            .work((total * 8) as u64, (total * 16) as u64))
    }
}
