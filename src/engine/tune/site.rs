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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::{Caps, Graph, Init, Layout, Packing, ParamSpec, Scope};
    use crate::engine::ops::{ConvSpec, conv};

    fn convolved(graph: &mut Graph, name: &str, spatial: [usize; 3], spec: ConvSpec) {
        let mut param = |end: &str, packing: Packing| {
            let (name, dims) = (format!("{name}.{end}"), vec![packing.elements()]);
            let init = Init::Constant(0.0);
            graph.param(ParamSpec { name, dims, scope: Scope::Shared, packing, init }, false)
        };
        let matrix = Packing::Matrix { out: 8, ins: vec![8], taps: spec.taps() };
        let weight = param("weight", matrix);
        let bias = param("bias", Packing::Channels { segments: vec![8] });
        let x = graph.input(name, Layout::new(1, 8, spatial));
        let y = conv(graph, x, weight, bias, spec).unwrap();
        graph.keep(y);
    }

    /// However they come in the graph: a budget that ends early was spent where most is to be gained.
    #[test]
    fn the_costliest_site_comes_first() {
        let mut graph = Graph::new();
        convolved(&mut graph, "small", [4, 6, 8], ConvSpec::pointwise());
        convolved(&mut graph, "large", [16, 16, 16], ConvSpec::same());
        convolved(&mut graph, "middle", [8, 12, 8], ConvSpec::pointwise());
        let hardware = Caps::default();
        for caps in [Caps { software: true, ..hardware.clone() }, hardware] {
            let draft = Draft::new(&graph, &caps, &Default::default()).unwrap();
            let sites = sites(std::slice::from_ref(&draft), caps.software).unwrap();
            let families: Vec<&str> = sites.iter().map(|site| site.choice.family()).collect();
            assert_eq!(families, ["conv", "pointwise", "pointwise"]);
            assert!(sites.is_sorted_by(|a, b| a.cost >= b.cost && a.cost > 0));
            assert!(sites[1].choice.site.contains("768"), "{}", sites[1].choice.site);
        }
    }
}
