//! What the headers of the recipes say: how to run them, where they depart from the paper, who gets the format reward.

use ppo_train::recipe::{self, Recipe, TraceStyle};
use std::path::{Path, PathBuf};

/// All recipes of the repository.
fn recipes() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let entries = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let all = entries(&root).into_iter().flat_map(|path| if path.is_dir() { entries(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

/// Whether the rows of a warm start are dialogues in their own layout; of files, by their names.
fn shows_dialogues(recipe: &Recipe) -> bool {
    let Some(sft) = &recipe.sft else { return false };
    let solver = sft.solver().map(|solver| (solver.style == TraceStyle::Dialogue, solver.merge_utterances));
    let files = sft.files().map(|files| (files.path.to_string_lossy().contains("dialogue"), files.merge_utterances));
    solver.or(files).is_some_and(|(dialogues, merged)| dialogues && !merged)
}

#[test]
fn headers_say_what_a_reader_must_know() {
    let (mut wrong, mut seen) = (vec![], 0);
    for path in recipes() {
        let text = std::fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).collect();
        let says = |what: &str| header.iter().any(|line| line.starts_with(what));
        let whole = header.iter().flat_map(|line| line.split_whitespace()).collect::<Vec<_>>().join(" ");
        let (recipe, _) = recipe::read(&path, &[]).unwrap();
        let is_primed_elsewhere = recipe.sft.as_ref().is_some_and(|sft| sft.from.is_some());
        let earns_nothing = shows_dialogues(&recipe) && !recipe.reward.dialogue_format;
        for (holds, what) in [
            (says(":schema "), "begins with a schema"),
            (says(" Hardware  "), "names the hardware"),
            (says(" Command   "), "names the command"),
            (says(" Result    "), "names the result"),
            (whole.contains("Departs from the paper"), "names where it departs from the paper"),
            (whole.contains("format reward"), "names who gets the format reward"),
            (
                is_primed_elsewhere || whole.contains("earns no format reward") == earns_nothing,
                "says of its own layout whether it earns the format reward",
            ),
            (text.lines().all(|line| line.chars().count() <= 120), "has lines of at most 120 columns"),
        ] {
            if !holds {
                wrong.push(format!("not true: {} {what}", path.display()));
            }
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 20, "{seen} recipes");
}
