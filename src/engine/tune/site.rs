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
    /// Estimate of what its dispatches cost in one run of all graphs, in bytes moved.
    cost: u64,
}

/// Every site with more than one variant, the costliest first.
pub fn sites(drafts: &[Draft]) -> Result<Vec<Site>> {
    let mut sites: Vec<Site> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (graph, draft) in drafts.iter().enumerate() {
        for node in 0..draft.graph().nodes().len() {
            for dispatch in draft.lower(node)? {
                let Some(choice) = dispatch.choice.filter(|c| c.candidates.len() > 1) else {
                    continue;
                };
                let cost = dispatch.bytes.max(dispatch.flops / FLOPS_PER_BYTE);
                let place = *places.entry(choice.site.clone()).or_insert(sites.len());
                match sites.get_mut(place) {
                    Some(site) => site.cost += cost,
                    None => sites.push(Site { choice, graph, node, cost }),
                }
            }
        }
    }
    sites.sort_by_key(|site| std::cmp::Reverse(site.cost));
    Ok(sites)
}
