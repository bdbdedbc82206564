//! What in a recipe differs from the paper's experiment (arXiv:2601.10825, supplementary tables 6 and 8), which are the
//! defaults of the keys.

use crate::recipe::identity::{Difference, differences as between};
use crate::recipe::{Recipe, Task};

/// Sections and keys that say where and how a run is done and shown, not what it is, and names of files and folders.
const NO_MATTER: [&str; 12] = [
    "name",
    "seed",
    "model",
    "sft.data",
    "sft.seed",
    "sft.from",
    "sft.micro_batch_tokens",
    "ppo.micro_batch_tokens",
    "hooks",
    "logging",
    "machine",
    "memory",
];

/// The keys in which a recipe departs from the paper's values, in alphabetical order.
pub fn differences(recipe: &Recipe) -> Vec<Difference> {
    let Some(paper) = paper(recipe) else { return vec![] };
    let all = between(&paper, recipe).into_iter();
    all.filter(|difference| !difference.is_in(&NO_MATTER) && !difference.is_in(&["checkpoints"])).collect()
}

/// The recipe with the default of every key that has one. Whether there is a warm start decides the arm.
fn paper(recipe: &Recipe) -> Option<Recipe> {
    let mut paper: Recipe =
        toml::from_str("name = \"paper\"\n[model]\npath = \"\"\n[task]\nkind = \"countdown\"\n[ppo]\n[sft]\n").ok()?;
    paper.sft = paper.sft.filter(|_| recipe.sft.is_some());
    paper.ppo = paper.ppo.filter(|_| recipe.ppo.is_some());
    // Another task has nothing to be compared with.
    if !matches!(recipe.task, Task::Countdown(_)) {
        paper.task = recipe.task.clone();
    }
    Some(paper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe;
    use std::path::Path;

    #[test]
    fn departures_from_the_paper_are_named() {
        let keys = |name: &str| -> Vec<String> {
            let recipe = recipe::stored(&Path::new("recipes").join(name)).unwrap();
            differences(&recipe).into_iter().map(|difference| difference.key).collect()
        };
        let quickstart = keys("quickstart.toml");
        for key in ["ppo.actor_lr", "task.max_number", "rollout.max_response_tokens", "sft.lr"] {
            assert!(quickstart.iter().any(|known| known == key), "{key}: {quickstart:?}");
        }
        assert!(!quickstart.iter().any(|key| key.starts_with("machine") || key == "reward.accuracy"), "{quickstart:?}");
        assert!(keys("baseline.toml").len() < 8, "{:?}", keys("baseline.toml"));
    }
}
