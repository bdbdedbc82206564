//! The runs of an experiment: one recipe with several seeds, or whatever a folder holds.

use crate::bad;
use crate::checkpoint::RunFolder;
use crate::recipe::spelling::entries;
use anyhow::Result;
use std::path::Path;

/// The run in a folder; else those in the folders `PATH-SEED`, by seed; else those in its own folders, by name.
///
/// # Errors
/// Bad input: there are none.
pub fn runs(path: &Path) -> Result<Vec<RunFolder>> {
    let is_run = |folder: &RunFolder| folder.recipe().is_file();
    let run = RunFolder::new(path);
    if is_run(&run) {
        return Ok(vec![run]);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let seed = |entry: &str| entry.strip_prefix(name)?.strip_prefix('-')?.parse::<u64>().ok();
    let beside = entries(path.parent().unwrap_or(Path::new("")));
    let mut seeds: Vec<(u64, &String)> = beside.iter().filter_map(|entry| Some((seed(entry)?, entry))).collect();
    seeds.sort();
    let seeds = seeds.into_iter().map(|(_, entry)| path.with_file_name(entry));
    let seeds: Vec<RunFolder> = seeds.map(|path| RunFolder::new(&path)).filter(is_run).collect();
    if !seeds.is_empty() && !name.is_empty() {
        return Ok(seeds);
    }
    let inside = if path.is_dir() { entries(path) } else { vec![] };
    let inside: Vec<RunFolder> = inside.iter().map(|entry| RunFolder::new(&path.join(entry))).filter(is_run).collect();
    match inside.is_empty() {
        true => Err(bad!("{} is not the folder of a run: there is no recipe.toml in it", path.display())),
        false => Ok(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_experiment_is_a_run_or_its_seeds_or_a_folder_of_runs() {
        let dir = tempfile::tempdir().unwrap();
        for run in ["x-2", "x-10", "x-1", "x-1b", "y"] {
            fs::create_dir(dir.path().join(run)).unwrap();
            fs::write(dir.path().join(run).join("recipe.toml"), "").unwrap();
        }
        fs::create_dir(dir.path().join("x-3")).unwrap();
        fs::write(dir.path().join("x-4"), "").unwrap();
        let names = |path: &Path| {
            let name = |run: &RunFolder| run.path().file_name().unwrap().to_str().unwrap().to_string();
            runs(path).map(|runs| runs.iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(names(&dir.path().join("x")).unwrap(), ["x-1", "x-2", "x-10"]);
        assert_eq!(names(&dir.path().join("y")).unwrap(), ["y"]);
        assert_eq!(names(dir.path()).unwrap(), ["x-1", "x-10", "x-1b", "x-2", "y"]);
        for none in ["x-3", "z", "x-4"] {
            let error = names(&dir.path().join(none)).unwrap_err();
            assert!(error.to_string().contains("is not the folder of a run"), "{error}");
        }
    }
}
