//! `ppo-train judge --agree`, `--differ`: two files of judged traces side by side.

use super::super::common::{print, print_json};
use anyhow::Result;
use ppo_train::bad;
use ppo_train::hooks::persona::{self, Judged};
use ppo_train::judge::{Agreement, Difference, agreement, differences};
use ppo_train::stats::RESAMPLES;
use ppo_train::terminal::{figure, interval, table};
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
                (figure(icc.value), ends.unwrap_or_default())
            }
            None => (String::new(), agreement.why.clone().unwrap_or_default()),
        };
        vec![agreement.name.clone(), value, ends, agreement.n.to_string()]
    };
    print(table(&["category", "ICC(3,1)", "95 % interval", "traces"], &found.iter().map(row).collect::<Vec<_>>()))
}

/// Prints the differences of two sets of judged traces.
pub fn differ(files: [&PathBuf; 2], json: bool) -> Result<()> {
    let [first, second] = [judged(files[0])?, judged(files[1])?];
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
