//! What was measured: seconds, rates and shares of the machine's ceiling; as JSON, and against another measurement.

use crate::stats::quantile;
use crate::terminal::{figure, table};
use crate::train::clock::Clock;
use crate::train::operations::Counted;
use serde_json::{Map, Value, json};

/// One stage of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: &'static str,
    /// The median of the steps.
    pub seconds: f64,
    /// Tokens written or read.
    pub tokens: usize,
    /// Floating-point operations that the work takes, however it is done.
    pub operations: f64,
}

impl Stage {
    fn gflops(&self) -> f64 {
        self.operations / self.seconds.max(1e-9) / 1e9
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// A measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub stages: Vec<Stage>,
    /// Seconds of a step, the median.
    pub step: f64,
    /// Operations per second of the best matrix product.
    pub gemm: f64,
    pub peak: Peak,
}

/// The most memory that was held, in bytes, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// By the process, on the host.
    pub host: Option<u64>,
    /// Taken of the GPU by libtorch, if the models are on one.
    pub gpu: Option<u64>,
}

/// The middle one, or the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { quantile(&values, 0.5) }
}

impl Measured {
    /// From the clocks of the steps.
    pub fn new(clocks: &[Clock], counted: &Counted, gemm: f64, peak: Peak) -> Self {
        let scored = (counted.read, counted.scoring);
        let stages = [
            ("gen", counted.written, counted.generation),
            ("old_log_prob", scored.0, scored.1),
            ("ref", scored.0, scored.1),
            ("values", counted.read, counted.values),
            ("update_critic", counted.read, Counted::update(counted.values)),
            ("update_actor", counted.read, Counted::update(counted.scoring)),
        ];
        let seconds = |name: &str| median(clocks.iter().filter_map(|clock| clock.seconds(name)).collect());
        let stages = stages.into_iter().map(|(name, tokens, operations)| {
            let seconds = seconds(name);
            Stage { name, seconds, tokens, operations }
        });
        // A shared critic has no passes of its own, and without a KL penalty there is no reference.
        let stages = stages.filter(|stage| stage.seconds > 1e-5).collect();
        Self { stages, step: median(clocks.iter().map(Clock::total).collect()), gemm, peak }
    }

    /// Tokens per second over the stages whose names begin like one of `names`.
    fn rate(&self, names: &[&str]) -> f64 {
        let own: Vec<&Stage> =
            self.stages.iter().filter(|stage| names.iter().any(|name| stage.name.starts_with(name))).collect();
        let tokens: usize = own.iter().map(|stage| stage.tokens).sum();
        tokens as f64 / own.iter().map(|stage| stage.seconds).sum::<f64>()
    }

    /// For programs; `--against` reads it.
    pub fn json(&self) -> Map<String, Value> {
        let stage = |stage: &Stage| {
            let (rate, gflops) = (stage.tokens_per_second(), stage.gflops());
            let share = stage.operations / stage.seconds / self.gemm;
            (
                stage.name.to_string(),
                json!({ "seconds": stage.seconds, "tokens": stage.tokens, "tokens_per_s": rate,
                "gflops": gflops, "share_of_gemm": share }),
            )
        };
        let all = json!({
            "rollout_tok_s": self.rate(&["gen"]),
            "score_tok_s": self.rate(&["old_log_prob", "ref", "values"]),
            "update_tok_s": self.rate(&["update"]),
            "step_s": self.step,
            "gemm_gflops": self.gemm / 1e9,
            "peak_rss_mb": self.peak.host.map(|bytes| bytes as f64 / 1e6),
            "peak_gpu_mb": self.peak.gpu.map(|bytes| bytes as f64 / 1e6),
            "stages": self.stages.iter().map(stage).collect::<Map<_, _>>(),
        });
        if let Value::Object(all) = all { all } else { Map::new() }
    }

    /// A table; with how many times as long each stage took in another measurement's JSON, if there is one.
    pub fn table(&self, against: Option<&Value>) -> String {
        let mut head = vec!["stage", "seconds", "tokens", "tokens/s", "GFLOP/s", "of the ceiling"];
        head.extend(against.map(|_| "speed-up"));
        let speedup = |before: Option<f64>, now: f64| match (against, before) {
            (None, _) => vec![],
            (Some(_), Some(before)) => vec![format!("{:.2}", before / now)],
            (Some(_), None) => vec![String::new()],
        };
        let mut rows: Vec<Vec<String>> = self
            .stages
            .iter()
            .map(|stage| {
                let share = 100.0 * stage.operations / stage.seconds / self.gemm;
                let before = against.and_then(|all| all["stages"][stage.name]["seconds"].as_f64());
                let mut row = vec![stage.name.to_string(), figure(stage.seconds), stage.tokens.to_string()];
                row.extend([stage.tokens_per_second(), stage.gflops()].map(figure));
                row.push(format!("{share:.0} %"));
                row.extend(speedup(before, stage.seconds));
                row
            })
            .collect();
        let blank = std::iter::repeat_n(String::new(), 4);
        let before = against.and_then(|all| all["step_s"].as_f64());
        rows.push(
            ["step".to_string(), figure(self.step)]
                .into_iter()
                .chain(blank)
                .chain(speedup(before, self.step))
                .collect(),
        );
        table(&head, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_all_stages_of_a_kind() {
        let stage = |name, seconds, tokens| Stage { name, seconds, tokens, operations: 1e9 };
        let stages = vec![stage("gen", 2.0, 100), stage("update_critic", 1.0, 60), stage("update_actor", 3.0, 60)];
        let measured = Measured { stages, step: 6.5, gemm: 4e9, peak: Peak { host: Some(2_000_000), gpu: None } };
        let json = Value::Object(measured.json());
        assert_eq!(json["rollout_tok_s"], 50.0);
        assert_eq!(json["update_tok_s"], 30.0);
        assert_eq!(json["stages"]["gen"]["share_of_gemm"], 0.125);
        assert_eq!((&json["peak_rss_mb"], &json["peak_gpu_mb"]), (&json!(2.0), &Value::Null));
        let faster = Measured { step: 3.25, ..measured };
        let table = faster.table(Some(&json));
        assert!(table.lines().last().unwrap().trim_end().ends_with("2.00"), "{table}");
        assert_eq!(median(vec![3.0, 1.0, 2.0, 10.0]), 2.5);
    }
}
