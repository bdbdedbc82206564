//! Where the time of a step goes, by kind of operation.

use crate::torch::Operation;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a kind of operation took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spent {
    pub kind: &'static str,
    pub calls: u64,
    pub seconds: f64,
    /// Its operations, those that took most first.
    pub operations: Vec<Operation>,
}

impl Spent {
    /// The names of the operations that took most of it, as libtorch spells them.
    pub fn most(&self, count: usize) -> String {
        let names: Vec<&str> = self.operations.iter().take(count).map(|operation| operation.name.as_str()).collect();
        names.join(", ")
    }
}

/// Words in an operation's name, and the kind it belongs to; the first that matches counts.
const KINDS: [(&str, &str); 45] = [
    ("ppo::attend", "attention"),
    ("ppo::sample", "sampling"),
    ("ppo::", "fused layers"),
    ("attention", "attention"),
    ("mm", "matrix products"),
    ("bmm", "matrix products"),
    ("linear", "matrix products"),
    ("matmul", "matrix products"),
    ("mkldnn", "matrix products"),
    ("fused_adam", "optimizer"),
    ("log_softmax", "vocabulary"),
    ("logsumexp", "vocabulary"),
    ("softmax", "attention"),
    ("searchsorted", "sampling"),
    ("cumsum", "sampling"),
    ("topk", "sampling"),
    ("argmax", "sampling"),
    ("gather", "picking rows"),
    ("scatter", "picking rows"),
    ("index", "picking rows"),
    ("embedding", "picking rows"),
    ("repeat_interleave", "picking rows"),
    ("norm", "norms"),
    ("rsqrt", "norms"),
    ("mean", "norms"),
    ("silu", "element by element"),
    ("copy", "copies"),
    ("cat", "copies"),
    ("clone", "copies"),
    ("stack", "copies"),
    ("contiguous", "copies"),
    ("to", "copies"),
    ("fill", "copies"),
    ("zero", "copies"),
    ("empty", "copies"),
    ("mul", "element by element"),
    ("add", "element by element"),
    ("sub", "element by element"),
    ("div", "element by element"),
    ("neg", "element by element"),
    ("exp", "element by element"),
    ("pow", "element by element"),
    ("sum", "sums"),
    ("accumulate", "gradients into place"),
    ("evaluate_function", "autograd itself"),
];

/// Adds up operations by kind, the most expensive first.
pub fn by_kind(operations: Vec<Operation>) -> Vec<Spent> {
    let mut kinds: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        kinds.entry(kind(&operation.name)).or_default().push(operation);
    }
    let spent = kinds.into_iter().map(|(kind, mut own)| {
        own.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Spent {
            kind,
            calls: own.iter().map(|operation| operation.calls).sum(),
            seconds: own.iter().map(|operation| operation.seconds).sum(),
            operations: own,
        }
    });
    let mut spent: Vec<Spent> = spent.collect();
    spent.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    spent
}

fn kind(name: &str) -> &'static str {
    let lower = name.to_lowercase();
    KINDS.iter().find(|(word, _)| lower.contains(word)).map_or("other", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_added_up_by_kind() {
        let operation = |name: &str, calls, seconds| Operation { name: name.into(), calls, seconds };
        let spent = by_kind(vec![
            operation("aten::mul", 3, 0.5),
            operation("aten::addmm", 2, 1.0),
            operation("aten::bmm", 1, 0.75),
            operation("aten::unheard_of", 1, 0.25),
        ]);
        let shown: Vec<_> = spent.iter().map(|s| (s.kind, s.calls, s.seconds)).collect();
        assert_eq!(shown, [("matrix products", 3, 1.75), ("element by element", 3, 0.5), ("other", 1, 0.25)]);
        assert_eq!(spent[0].most(2), "aten::addmm, aten::bmm");
    }
}
