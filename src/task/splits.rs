//! What tasks share whose problems come from files: a file for each split, as many rows as asked for, and what is said
//! about problems that are there more than once.

use super::interface::Split;
use crate::BadInput;
use crate::recipe::Sources;
use crate::recipe::spelling::no_file;
use crate::terminal::{self, counted};
use anyhow::{Result, ensure};
use std::collections::HashSet;
use std::hash::Hash;
use std::path::Path;

/// Checks that the files of a recipe, each with its key, are there and that no two splits have the same one.
///
/// # Errors
/// The first file of which this is not so, with its place in the recipe.
pub fn check_files(files: &[(&str, &Path)], at: &Sources) -> Result<(), BadInput> {
    for (i, (key, file)) in files.iter().enumerate() {
        at.ensure(file.is_file(), key, no_file(file))?;
        if let Some((other, _)) = files[..i].iter().find(|(_, other)| other == file) {
            return Err(at.bad(key, format!("the file of {other} again: the splits would be the same problems")));
        }
    }
    Ok(())
}

/// Checks that a file has the rows that the recipe's `key` asks for.
///
/// # Errors
/// Fewer rows, or none.
pub fn check_count(path: &Path, found: usize, asked: usize, key: &str) -> Result<()> {
    ensure!(found > 0 || asked == 0, "{} has no rows", path.display());
    let rows = counted(found, "row");
    ensure!(
        found >= asked,
        "{} has {rows}, but the recipe asks for {asked}: set {key} to at most {found}",
        path.display()
    );
    Ok(())
}

/// Says how many problems of a split repeat others of it, and how many of validation and test are training problems
/// too: accuracy on them shows no generalisation. Problems that are equal here are the same, in the order of
/// `Split::ALL`.
pub fn warn_of_shared<T: Eq + Hash>(problems: &[Vec<T>; 3]) {
    shared(problems).iter().for_each(|note| terminal::warn(note));
}

fn shared<T: Eq + Hash>(problems: &[Vec<T>; 3]) -> Vec<String> {
    let distinct = |split: &'_ [T]| split.iter().collect::<HashSet<_>>().len();
    let mut notes = Vec::new();
    for (split, name) in problems.iter().zip(Split::ALL.map(Split::name)) {
        let (count, twice) = (split.len(), split.len() - distinct(split));
        if twice > 0 {
            notes.push(format!("note: the {name} split repeats {} (of {count})", counted(twice, "problem")));
        }
    }
    let [train, validation, test] = problems;
    let known: HashSet<&T> = train.iter().collect();
    for (name, split) in [("validation", validation), ("test", test)] {
        let shared = split.iter().filter(|problem| known.contains(problem)).count();
        if shared > 0 {
            let (shared, count) = (counted(shared, "problem"), split.len());
            notes.push(format!("warning: the {name} split shares {shared} (of {count}) with the train split"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_that_are_there_twice_are_counted() {
        let split = |names: &str| names.chars().collect::<Vec<_>>();
        assert_eq!(shared(&[split("abc"), split("de"), split("f")]), [""; 0]);
        assert_eq!(
            shared(&[split("aab"), split("bbc"), split("xa")]),
            [
                "note: the train split repeats 1 problem (of 3)",
                "note: the validation split repeats 1 problem (of 3)",
                "warning: the validation split shares 2 problems (of 3) with the train split",
                "warning: the test split shares 1 problem (of 2) with the train split",
            ]
        );
    }
}
