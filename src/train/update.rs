//! What follows a domain's backward pass: a look at loss and gradients, and the update of what took part.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::base::{Error, Result};
use crate::engine::exec::Store;
use crate::engine::graph::{Caps, Dispatch, Graph, Value};
use crate::engine::ops;
use crate::engine::ops::{Guarded, Optimizer};

/// Positions in the store of the parameters that a graph trains.
pub(super) fn touched(graph: &Graph, store: &Store) -> Result<BTreeSet<usize>> {
    graph
        .trained_params()
        .into_iter()
        .map(|index| {
            let name = &graph.params()[index].name;
            store.position(name).ok_or_else(|| Error::Internal(format!("{name} is not stored")))
        })
        .collect()
}

/// Neighbouring parameters that the same domains update: they share their count of updates.
fn ranges(mine: &BTreeSet<usize>, all: &[BTreeSet<usize>]) -> Vec<RangeInclusive<usize>> {
    let set = |position: usize| all.iter().map(|t| t.contains(&position)).collect::<Vec<_>>();
    let mut ranges: Vec<RangeInclusive<usize>> = Vec::new();
    for &position in mine {
        let joins = |range: &&mut RangeInclusive<usize>| {
            range.end() + 1 == position && set(*range.start()) == set(position)
        };
        match ranges.last_mut().filter(joins) {
            Some(range) => *range = *range.start()..=position,
            None => ranges.push(position..=position),
        }
    }
    ranges
}

/// What a dispatch behind the backward pass does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Updates parameters.
    Update,
    /// Takes them into their moving average.
    Average,
}

/// A dispatch that updates or averages parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct UpdateCommand {
    pub action: Action,
    /// Its place among the commands.
    pub command: usize,
    /// A parameter whose count of updates it shares, by position in the store.
    pub param: usize,
}

/// What is updated after a domain's backward pass, and how.
pub(super) struct Update<'a> {
    /// Parameters of this domain and of every domain.
    pub mine: &'a BTreeSet<usize>,
    pub all: &'a [BTreeSet<usize>],
    pub optimizer: &'a Optimizer,
    /// Whether a moving average of the parameters is kept.
    pub averages: bool,
    /// Whether gradients are multiplied by the loss scale.
    pub scales: bool,
    /// The domain's loss.
    pub loss: Value,
}

impl Update<'_> {
    /// The dispatches on the parameters of a store.
    pub fn lower(&self, store: &Store, caps: &Caps) -> Result<Tail> {
        let params = store.params();
        let span = |range: RangeInclusive<usize>| {
            let (start, last) = (params[*range.start()].start, &params[*range.end()]);
            Span { param: *range.start(), start, words: last.start + last.span - start }
        };
        let spans: Vec<Span> = ranges(self.mine, self.all).into_iter().map(span).collect();
        let words: Vec<_> = spans.iter().map(|span| (span.start, span.words)).collect();
        let guarded = Guarded { ranges: &words, loss: Some(self.loss), scales: self.scales };
        let mut dispatches = ops::guard_dispatches(&guarded, caps)?;
        let mut updates = Vec::new();
        for Span { param, start, words } in spans {
            let update = ops::optimizer_dispatch(self.optimizer, start, words, caps)?;
            let average = match self.averages {
                true => ops::average_dispatch(start, words, caps)?,
                false => Vec::new(),
            };
            let update = update.into_iter().map(|dispatch| (Action::Update, dispatch));
            let average = average.into_iter().map(|dispatch| (Action::Average, dispatch));
            for (action, dispatch) in update.chain(average) {
                updates.push(UpdateCommand { action, command: dispatches.len(), param });
                dispatches.push(dispatch);
            }
        }
        Ok(Tail { dispatches, updates })
    }
}

/// Neighbouring parameters in the store.
struct Span {
    /// The first, by position.
    param: usize,
    /// Where they begin, in words.
    start: usize,
    words: usize,
}

/// What follows a domain's backward pass.
pub(super) struct Tail {
    pub dispatches: Vec<Dispatch>,
    /// Updates and averages among them.
    pub updates: Vec<UpdateCommand>,
}
