//! Whether PPO can start from the rows of a warm start; and if not, why, and what would help.

use super::stats::{Stats, Unanswered};
use crate::bad;
use crate::recipe::{Recipe, Sft};
use anyhow::Result;

/// Refuses to start PPO from rows that its reward cannot reward.
///
/// # Errors
/// Bad input: with PPO, a share of rows with an answer below `sft.min_answered`; the causes, each with the keys that
/// would help.
pub fn check(stats: &Stats, recipe: &Recipe, sft: &Sft) -> Result<()> {
    if recipe.ppo.is_none() || stats.answered_share() >= sft.min_answered {
        return Ok(());
    }
    Err(bad!(
        "{}: too few to start PPO from\n{}or, if it is meant so, lower sft.min_answered ({})",
        stats.verdict(),
        causes(stats, sft),
        sft.min_answered
    ))
}

/// Why rows have no answer, a line for each cause.
fn causes(stats: &Stats, sft: &Sft) -> String {
    let Unanswered { context, answer_tags, dialogue_format } = stats.unanswered;
    let keys = [(answer_tags, "sft.data.answer_tags = true"), (dialogue_format, "reward.dialogue_format = true")];
    let keys: Vec<&str> = keys.into_iter().filter(|(rows, _)| *rows > 0).map(|(_, key)| key).collect();
    let set = match keys[..] {
        [] => String::new(),
        [key] => format!("; set {key}"),
        _ => format!("; set {}, whichever is meant", keys.join(" or ")),
    };
    let longer = format!("; raise sft.context ({})", sft.context);
    let causes = [
        (stats.unreadable, "that cannot be read", "; mend them, or take them out of the file"),
        (context, "cut before the end of their answer", longer.as_str()),
        (stats.rows - stats.answered - context, "without an answer where the reward looks for it", set.as_str()),
    ];
    let found = causes.iter().filter(|(rows, ..)| *rows > 0);
    found.map(|(rows, what, help)| format!("rows {what}: {rows}{help}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe;
    use std::path::Path;

    #[test]
    fn what_is_advised_would_help() {
        let recipe = recipe::stored(Path::new("recipes/smoke.toml")).unwrap();
        let sft = recipe.sft.as_ref().unwrap();
        let said = |stats: Stats| check(&stats, &recipe, sft).map_err(|error| error.to_string());
        let ten = |answered, unanswered| Stats { rows: 10, answered, unanswered, ..Stats::default() };
        let none = Unanswered::default();
        assert_eq!(said(ten(9, none)), Ok(()));
        let or = "or, if it is meant so, lower sft.min_answered (0.9)";
        for (stats, advice) in [
            (
                Stats { rows: 8, unreadable: 2, ..ten(8, none) },
                "rows that cannot be read: 2; mend them, or take them out of the file\n",
            ),
            (
                ten(0, Unanswered { context: 10, ..none }),
                "rows cut before the end of their answer: 10; raise sft.context (256)\n",
            ),
            (
                ten(7, Unanswered { answer_tags: 3, dialogue_format: 2, ..none }),
                "rows without an answer where the reward looks for it: 3; set sft.data.answer_tags = true or \
                 reward.dialogue_format = true, whichever is meant\n",
            ),
            (
                ten(7, Unanswered { answer_tags: 3, ..none }),
                "rows without an answer where the reward looks for it: 3; set sft.data.answer_tags = true\n",
            ),
            (ten(7, none), "rows without an answer where the reward looks for it: 3\n"),
        ] {
            let message = said(stats).unwrap_err();
            let (verdict, help) = message.split_once('\n').unwrap();
            assert!(verdict.ends_with(": too few to start PPO from"), "{verdict}");
            assert_eq!(help, format!("{advice}{or}"));
        }
        let alone = recipe::Recipe { ppo: None, ..recipe.clone() };
        assert!(check(&ten(0, none), &alone, sft).is_ok());
    }
}
