//! How many operations and tokens the stages of a step take, and what share of the device's peak they reach (MFU).
//!
//! Counted are the matrix products that the work takes, however it is done: each prompt is read once for all responses
//! to it, nothing is padded, no layer is computed again. Doing more than that lowers the rate that is reached.

use super::clock::Clock;
use crate::metrics::Record;
use crate::model::{ModelConfig, Products};
use crate::recipe::Ppo;

/// Operations and tokens of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// Rollouts: prompts, then each response.
    pub generation: f64,
    /// One pass over all sequences, with log-probs of their responses.
    pub scoring: f64,
    /// One pass with values.
    pub values: f64,
    /// Tokens of the responses.
    pub written: usize,
    /// Tokens of all sequences, prompts once per sample.
    pub read: usize,
}

impl Counted {
    /// Counts for prompts of so many tokens, and the tokens of the responses to each.
    pub fn of<'a>(config: &ModelConfig, prompts: impl IntoIterator<Item = (usize, &'a [usize])>) -> Self {
        let products = Products::of(config);
        let mut all = Self::default();
        for (prompt, lengths) in prompts {
            let once = products.pass(0, prompt);
            all.generation += once;
            all.values += once;
            all.scoring += once;
            for &length in lengths {
                let (whole, head) = (prompt + length, length as f64 * products.head);
                let response = products.pass(prompt, whole);
                // The last token is drawn and not read.
                all.generation += products.pass(prompt, whole.saturating_sub(1).max(prompt)) + head;
                all.values += response;
                all.scoring += response + head;
                all.written += length;
                all.read += whole;
            }
        }
        all
    }

    /// Operations of an update, forward and backward.
    pub fn update(forward: f64) -> f64 {
        3.0 * forward
    }

    /// Operations of the stages of a step, by the names that `Clock` gives them.
    pub fn stages(&self, ppo: &Ppo) -> Vec<(&'static str, f64)> {
        let updates = |forward: f64| ppo.epochs as f64 * Self::update(forward);
        let mut all = vec![("gen", self.generation), ("old_log_prob", self.scoring)];
        all.extend(ppo.needs_reference().then_some(("ref", self.scoring)));
        if ppo.critic_is_separate() {
            all.extend([("values", self.values), ("update_critic", updates(self.values))]);
        }
        all.push(("update_actor", updates(self.scoring)));
        all
    }

    /// Writes what share of `peak`, the operations per second of all processes together, was reached: `actor/mfu` and
    /// `critic/mfu` in the updates, and `perf/mfu` in the whole step; nothing of a peak that is not known.
    pub fn record(&self, ppo: &Ppo, clock: &Clock, peak: Option<f64>, record: &mut Record) {
        let Some(peak) = peak else { return };
        let done = self.stages(ppo).into_iter().filter_map(|(stage, operations)| {
            // Stages that were not done, such as the actor's update while the critic warms up, have no time.
            clock.seconds(stage).map(|seconds| (stage, operations, seconds))
        });
        let mut all = 0.0;
        for (stage, operations, seconds) in done {
            all += operations;
            let name = match stage {
                "update_actor" => "actor/mfu",
                "update_critic" => "critic/mfu",
                _ => continue,
            };
            record.set(name, operations / seconds.max(1e-9) / peak);
        }
        record.set("perf/mfu", all / clock.total().max(1e-9) / peak);
        record.set("perf/peak_tflops", peak / 1e12);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Stage;

    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_prompt_is_read_once_for_its_responses() {
        let (config, products) = (config(), Products::of(&config()));
        let counted = Counted::of(&config, [(3, &[2, 1, 0][..])]);
        assert_eq!((counted.written, counted.read), (3, 12));
        let read = products.pass(0, 3) + products.pass(3, 5) + products.pass(3, 4);
        assert_eq!(counted.values, read);
        assert_eq!(counted.scoring, read + 3.0 * products.head);
        // The last token of a response is never read.
        assert_eq!(counted.generation, products.pass(0, 4) + 3.0 * products.head);
    }

    #[test]
    fn shares_of_the_peak_are_of_the_stages_that_were_done() {
        let ppo: Ppo = toml::from_str("epochs = 2").unwrap();
        let counted = Counted::of(&config(), [(3, &[2, 1][..])]);
        let mut clock = Clock::start();
        for stage in ["gen", "old_log_prob", "ref", "values", "update_critic"] {
            clock.lap(stage);
        }
        let mut record = Record::new(Stage::Ppo, 1);
        counted.record(&ppo, &clock, None, &mut record);
        assert!(record.get("critic/mfu").is_none() && record.get("perf/peak_tflops").is_none());
        counted.record(&ppo, &clock, Some(1e9), &mut record);
        assert_eq!(record.get("actor/mfu"), None);
        let seconds = clock.seconds("update_critic").unwrap().max(1e-9);
        assert_eq!(record.get("critic/mfu"), Some(2.0 * 3.0 * counted.values / seconds / 1e9));
        clock.lap("update_actor");
        counted.record(&ppo, &clock, Some(1e9), &mut record);
        let all: f64 = counted.stages(&ppo).iter().map(|(_, operations)| operations).sum();
        assert_eq!(all, counted.generation + 8.0 * counted.scoring + 7.0 * counted.values);
        assert_eq!(record.get("perf/mfu"), Some(all / clock.total() / 1e9));
        assert!(record.get("actor/mfu").is_some() && record.get("perf/peak_tflops") == Some(1e-3));
    }
}
