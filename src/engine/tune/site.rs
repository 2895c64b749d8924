//! The places of graphs where a kernel has several variants.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::Result;
use crate::engine::graph::FLOPS_PER_BYTE;
use crate::engine::plan::Draft;
use crate::engine::shader::Choice;

/// A site and the first node that has it.
#[derive(Debug, Clone)]
pub struct Site {
    pub choice: Arc<Choice>,
    pub graph: usize,
    pub node: usize,
    /// Nodes of all graphs that have it.
    pub nodes: usize,
    /// Estimate of what its dispatches cost in one run of all graphs, in bytes moved; sites of no known work come last.
    cost: u64,
}

/// Operations that take as long as moving one byte in kernels as they are: on an NVIDIA H200 this ranked the kernels of all
/// configurations best, since few come as near to what the adapter computes as to what it moves.
const HARDWARE_FLOPS_PER_BYTE: u64 = 1;

/// Every site with more than one variant, the costliest first on an adapter of this kind.
pub fn sites(drafts: &[Draft], software: bool) -> Result<Vec<Site>> {
    let flops_per_byte = if software { FLOPS_PER_BYTE } else { HARDWARE_FLOPS_PER_BYTE };
    let mut sites: Vec<Site> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (graph, draft) in drafts.iter().enumerate() {
        for node in 0..draft.graph().nodes().len() {
            let mut known: Vec<usize> = Vec::new();
            for dispatch in draft.lower(node)? {
                let Some(choice) = dispatch.choice.filter(|c| c.candidates.len() > 1) else {
                    continue;
                };
                let cost = dispatch.bytes.max(dispatch.flops / flops_per_byte);
                let place = *places.entry(choice.site.clone()).or_insert(sites.len());
                match sites.get_mut(place) {
                    Some(site) => site.cost += cost,
                    None => sites.push(Site { choice, graph, node, nodes: 0, cost }),
                }
                if !known.contains(&place) {
                    known.push(place);
                    sites[place].nodes += 1;
                }
            }
        }
    }
    sites.sort_by_key(|site| std::cmp::Reverse(site.cost));
    Ok(sites)
}
