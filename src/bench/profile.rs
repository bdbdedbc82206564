//! Where the time of a step goes, by kind of operation.

use crate::terminal::{figure, table};
use crate::torch::Operation;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The stages that are told apart.
pub const STAGES: [&str; 4] = ["gen", "scoring", "update_critic", "update_actor"];

/// What operations took, stage by stage.
#[derive(Default)]
pub struct Spent {
    stages: Vec<(&'static str, Vec<Operation>)>,
}

impl Spent {
    /// Notes the operations of a stage.
    pub fn add(&mut self, stage: &'static str, mut operations: Vec<Operation>) {
        operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        self.stages.push((stage, operations));
    }

    /// Seconds of each stage by kind, and the names of a kind's three most expensive operations; the most expensive
    /// kind first.
    fn by_kind(&self) -> Vec<(&'static str, Vec<f64>, String)> {
        let mut kinds: BTreeMap<&str, (Vec<f64>, BTreeMap<&str, f64>)> = BTreeMap::new();
        for (at, (_, operations)) in self.stages.iter().enumerate() {
            for operation in operations {
                let (seconds, names) = kinds.entry(kind(operation)).or_default();
                seconds.resize(self.stages.len(), 0.0);
                seconds[at] += operation.seconds;
                *names.entry(&operation.name).or_default() += operation.seconds;
            }
        }
        let mut all: Vec<_> = kinds
            .into_iter()
            .map(|(kind, (seconds, names))| {
                let mut names: Vec<_> = names.into_iter().collect();
                names.sort_by(|a, b| b.1.total_cmp(&a.1));
                let most: Vec<String> = names.iter().take(3).map(|(name, _)| short(name)).collect();
                (kind, seconds, most.join(", "))
            })
            .collect();
        let total = |seconds: &[f64]| seconds.iter().sum::<f64>();
        all.sort_by(|a, b| total(&b.1).total_cmp(&total(&a.1)));
        all
    }

    /// A table of kinds and stages, in seconds.
    pub fn table(&self) -> String {
        let mut head = vec!["operations"];
        head.extend(self.stages.iter().map(|(stage, _)| *stage));
        head.push("most of it");
        let row = |(kind, seconds, most): (&str, Vec<f64>, String)| {
            let seconds = seconds.into_iter().map(figure);
            [kind.to_string()].into_iter().chain(seconds).chain([most]).collect()
        };
        table(&head, &self.by_kind().into_iter().map(row).collect::<Vec<_>>())
    }

    /// Every operation of every stage.
    pub fn json(&self) -> Value {
        let operation =
            |o: &Operation| json!({ "name": o.name, "kind": kind(o), "calls": o.calls, "seconds": o.seconds });
        let stages = self.stages.iter();
        let stages = stages.map(|(stage, all)| (stage.to_string(), all.iter().map(operation).collect()));
        Value::Object(stages.collect::<Map<_, _>>())
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

/// The same for the kernels of a GPU, whose names are longer: those of cuBLAS, cuDNN and libtorch.
const KERNELS: [(&str, &str); 22] = [
    ("memcpy", "copies"),
    ("memset", "copies"),
    ("flash", "attention"),
    ("fmha", "attention"),
    ("sdpa", "attention"),
    ("nvjet", "matrix products"),
    ("gemm", "matrix products"),
    ("gemv", "matrix products"),
    ("splitk", "matrix products"),
    ("adam", "optimizer"),
    ("softmax", "softmaxes"),
    ("searchsorted", "sampling"),
    ("scan", "sampling"),
    ("norm", "norms"),
    ("gamma", "norms"),
    ("catarray", "copies"),
    ("copy", "copies"),
    ("fillfunctor", "copies"),
    ("reduce", "sums"),
    ("index", "picking rows"),
    ("gather", "picking rows"),
    ("elementwise", "element by element"),
];

fn kind(operation: &Operation) -> &'static str {
    let lower = operation.name.to_lowercase();
    let kinds = if operation.kernel { &KERNELS[..] } else { &KINDS };
    kinds.iter().find(|(word, _)| lower.contains(word)).map_or("other", |(_, kind)| kind)
}

/// The beginning of a name, as much as fits a table.
fn short(name: &str) -> String {
    const LONGEST: usize = 60;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_added_up_by_kind() {
        let operation = |name: &str, calls, seconds| Operation { name: name.into(), calls, seconds, kernel: false };
        let mut spent = Spent::default();
        spent.add("gen", vec![operation("aten::mul", 3, 0.5), operation("aten::addmm", 2, 1.0)]);
        spent.add("scoring", vec![operation("aten::bmm", 1, 0.75), operation("aten::unheard_of", 1, 0.25)]);
        let expected = [
            ("matrix products", vec![1.0, 0.75], "aten::addmm, aten::bmm".to_string()),
            ("element by element", vec![0.5, 0.0], "aten::mul".to_string()),
            ("other", vec![0.0, 0.25], "aten::unheard_of".to_string()),
        ];
        assert_eq!(spent.by_kind(), expected);
        assert_eq!(spent.json()["gen"][0]["kind"], "matrix products");
        assert!(spent.table().contains("most of it"));
    }

    #[test]
    fn kernels_have_kinds_of_their_own() {
        let kernel = |name: &str| kind(&Operation { name: name.into(), calls: 1, seconds: 0.1, kernel: true });
        let copy = "void at::native::vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda(at)>";
        for (name, expected) in [
            ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNN", "matrix products"),
            ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128> >", "attention"),
            (
                "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float> >",
                "element by element",
            ),
            (copy, "copies"),
            ("Memcpy HtoD (Pinned -> Device)", "copies"),
            ("unheard_of", "other"),
        ] {
            assert_eq!(kernel(name), expected, "{name}");
        }
        assert_eq!(short(copy).chars().count(), 61);
    }
}
