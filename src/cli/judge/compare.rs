//! `ppo-train judge --agree`, `--differ`: two files of judged traces side by side.

use super::super::common::{print, print_json};
use anyhow::{Error, Result};
use ppo_train::bad;
use ppo_train::hooks::Outcome;
use ppo_train::hooks::persona::{self, Judged};
use ppo_train::judge::{Agreement, Difference, agreement, differences};
use ppo_train::stats::RESAMPLES;
use ppo_train::terminal::{self, figure, interval, table};
use std::path::{Path, PathBuf};

/// The judged traces of a file or folder.
///
/// # Errors
/// Bad input: there are none.
fn judged(path: &Path) -> Result<Vec<Judged>> {
    let all = persona::read(path)?;
    if all.is_empty() {
        return Err(bad!("{} has no judged traces", path.display()));
    }
    if all.iter().all(|one| one.judgement.is_none()) {
        return Err(bad!("none of the {} traces of {} has a judgement", all.len(), path.display()));
    }
    Ok(all)
}

/// Prints the agreement of two judges.
pub fn agree(files: [&PathBuf; 2], json: bool) -> Result<()> {
    let [first, second] = [judged(files[0])?, judged(files[1])?];
    let same = first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| a.text == b.text);
    if !same {
        let [a, b] = files.map(|file| file.display());
        return Err(bad!("{a} and {b} are not about the same traces in the same order"));
    }
    let said = |all: &[Judged]| all.iter().map(|one| one.judgement.clone()).collect::<Vec<_>>();
    let (first, second) = (said(&first), said(&second));
    let [first, second] = [&first, &second].map(|all| all.iter().map(Option::as_ref).collect::<Vec<_>>());
    let found = agreement(&first, &second);
    if json {
        return print_json(&serde_json::to_value(found)?);
    }
    let row = |agreement: &Agreement| {
        let (value, ends) = match &agreement.icc {
            Some(icc) => {
                let ends = icc.low.zip(icc.high).map(|(low, high)| interval([low, high]));
                let mean = agreement.categories.map(|count| match count {
                    1 => "that of one category".to_string(),
                    _ => format!("the mean of {count} categories"),
                });
                (figure(icc.value), ends.or(mean).unwrap_or_default())
            }
            None => (String::new(), agreement.why.clone().unwrap_or_default()),
        };
        vec![agreement.name.clone(), value, ends, agreement.n.to_string()]
    };
    print(table(&["category", "ICC(3,1)", "95 % interval", "traces"], &found.iter().map(row).collect::<Vec<_>>()))
}

/// What to know about what two sets of judged traces depend on, as far as the results beside them say.
///
/// # Errors
/// Bad input: different judges have read them, so that what differs may be the judges.
fn of_one_judge(files: [&PathBuf; 2]) -> Result<Option<String>> {
    let [a, b] = files.map(|file| file.display());
    let known = |file: &PathBuf| Ok::<_, Error>(Outcome::beside(file)?.filter(|outcome| outcome.judge().is_some()));
    let (first, second) = match [known(files[0])?, known(files[1])?] {
        [Some(first), Some(second)] => (first, second),
        [first, _] => {
            let unknown = if first.is_none() { a } else { b };
            return Ok(Some(format!("nothing says who judged {unknown}; what differs may be the judges")));
        }
    };
    let parts = first.judged_apart(&second);
    if !parts.is_empty() {
        return Err(bad!(
            "{a} depends on another {} than {b}: {}\n\
             `ppo-train judge --again` judges anew, and `ppo-train judge --agree` says how far two judges agree",
            parts.join(" and "),
            first.judges(&second)
        ));
    }
    let others = first.apart(&second);
    Ok((!others.is_empty()).then(|| format!("{a} depends on another {} than {b}", others.join(" and "))))
}

/// Prints the differences of two sets of judged traces.
pub fn differ(files: [&PathBuf; 2], json: bool) -> Result<()> {
    let [first, second] = [judged(files[0])?, judged(files[1])?];
    if let Some(note) = of_one_judge(files)? {
        terminal::warn(&format!("note: {note}"));
    }
    let in_tokens = first.iter().chain(&second).filter(|one| one.tokens.is_some()).count();
    if in_tokens > 0 && in_tokens < first.len() + second.len() {
        let [a, b] = files.map(|file| file.display());
        return Err(bad!(
            "{a}, {b}: some lengths are in tokens, of what a run wrote, and others in words, of what `judge --traces` \
             read, so that none can be matched; let `judge --traces` read both"
        ));
    }
    // Answers to the same problems are pairs.
    let paired = first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| a.problem == b.problem);
    let [a, b] = [&first, &second].map(|all| all.iter().map(Judged::view).collect::<Vec<_>>());
    let found = differences(&a, &b, paired, RESAMPLES);
    if json {
        return print_json(&serde_json::to_value(found)?);
    }
    let row = |one: &Difference| {
        let matched = one.matched.as_ref().map_or([String::new(), String::new()], |matched| {
            let ends = matched.low.zip(matched.high).map(|(low, high)| interval([low, high]));
            [figure(matched.difference), ends.unwrap_or_default()]
        });
        [vec![one.name.clone(), figure(one.first), figure(one.second)], matched.to_vec()].concat()
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print(table(&["figure", "first", "second", "difference at matched length", "95 % interval"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    #[test]
    fn traces_of_two_judges_are_not_held_against_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str, identity: Value| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            let (hook, summary) = ("persona".into(), String::new());
            let outcome = Outcome { hook, step: 0, identity, summary, missing: None, notes: vec![], figures: vec![] };
            outcome.write(&folder).unwrap();
            folder
        };
        let by =
            |kind: &str, prompt: &str, seed: u64| json!({ "judge": { "kind": kind }, "prompt": prompt, "seed": seed });
        let lexical = folder("lexical", by("lexical", "p", 1));
        let seed = folder("seed", by("lexical", "p", 2)).join(persona::JUDGED);
        let prompt = folder("prompt", by("lexical", "q", 1));
        let endpoint = folder("endpoint", by("endpoint", "p", 1)).join(persona::JUDGED);
        let alone = dir.path().join("traces.jsonl");
        let note = |a, b| of_one_judge([a, b]).unwrap();
        assert_eq!(note(&lexical, &seed), None);
        assert!(note(&lexical, &prompt).unwrap().contains("depends on another prompt than"));
        for unknown in [note(&lexical, &alone), note(&alone, &endpoint)] {
            assert!(unknown.unwrap().contains("traces.jsonl; what differs may be the judges"));
        }
        let error = of_one_judge([&lexical, &endpoint]).unwrap_err();
        assert!(error.is::<ppo_train::BadInput>());
        let error = error.to_string();
        assert!(error.contains("depends on another judge than") && error.contains("lexical here, endpoint there"));
    }
}
