//! Graphs that cannot be built.

use u2seg::low_level::graph::{Graph, Layout};
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, RegionTargets};

#[test]
fn losses_that_cannot_train_regions_are_refused() {
    let mut graph = Graph::new();
    let logits = graph.input("logits", Layout::new(1, 3, [4, 4, 4]));
    let targets = RegionTargets {
        labels: graph.input_words("labels", 64),
        table: graph.input_words("table", 4),
        entries: 4,
        unlabelled: None,
    };
    let refused = ops::region_loss(&mut graph, logits, targets, LossWeights::u2net());
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("loss: ") && message.contains("dice-ce or ce"), "{message}");
    let short = RegionTargets { entries: 5, ..targets };
    assert!(ops::region_loss(&mut graph, logits, short, LossWeights::ce()).is_err());
}
