//! Lists of features, by name: which ones belong to personalities, which to expertise.

use crate::{OrBadInput, WHOLE, bad, json, read_text};
use anyhow::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// Named lists of features, each ascending and without repetitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists(pub Vec<(String, Vec<i64>)>);

impl Lists {
    /// One list, `all`, of every feature.
    pub fn all(features: i64) -> Self {
        Self(vec![("all".into(), (0..features).collect())])
    }

    /// Reads lists: a `.json` file with an object of lists, `{"personality": [5, 17], ...}`, or a text file with a
    /// feature in each line, whose list is called what the file is. `features`: how many there are.
    ///
    /// # Errors
    /// Bad input: a file that cannot be read; an entry that is not a feature; an empty list.
    pub fn read(file: &Path, features: i64) -> Result<Self> {
        let shown = file.display();
        let known = |value: i64| (0..features).contains(&value).then_some(value);
        let lists: Vec<(String, Vec<i64>)> = if file.extension().is_some_and(|extension| extension == "json") {
            let object: Map<String, Value> = json::read(file).bad_input()?;
            let list = |(name, value): (String, Value)| {
                let entries = value.as_array().ok_or_else(|| bad!("{shown}: `{name}` is not a list of features"))?;
                let entry = |entry: &Value| {
                    let number = entry.as_i64().and_then(known);
                    number.ok_or_else(|| {
                        bad!("{shown}: `{name}` has {entry}, expected features from 0 to {}", features - 1)
                    })
                };
                Ok((name.clone(), entries.iter().map(entry).collect::<Result<_>>()?))
            };
            object.into_iter().map(list).collect::<Result<_>>()?
        } else {
            let text = read_text(file, WHOLE).map_err(|error| bad!("cannot read {shown}: {error}"))?;
            let entry = |(line, number): (&str, usize)| {
                let found = line.trim().parse().ok().and_then(known);
                let most = features - 1;
                found.ok_or_else(|| bad!("{shown}, line {number}: `{line}` is not a feature from 0 to {most}"))
            };
            let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            vec![(name, lines.map(entry).collect::<Result<_>>()?)]
        };
        if lists.is_empty() {
            return Err(bad!("{shown} has no lists"));
        }
        if let Some((name, _)) = lists.iter().find(|(_, list)| list.is_empty()) {
            return Err(bad!("{shown}: the list `{name}` is empty"));
        }
        let sorted = |(name, mut list): (String, Vec<i64>)| {
            list.sort_unstable();
            list.dedup();
            (name, list)
        };
        Ok(Self(lists.into_iter().map(sorted).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            Lists::read(&file, 10).map(|lists| lists.0).map_err(|error| format!("{error:#}"))
        };
        let both = vec![("b".into(), vec![1, 9]), ("a".into(), vec![0])];
        assert_eq!(read("x.json", r#"{"b": [9, 1, 9], "a": [0]}"#), Ok(both));
        assert_eq!(read("expertise.txt", "3\n\n 2\n"), Ok(vec![("expertise".into(), vec![2, 3])]));
        for (name, text, part) in [
            ("x.json", r#"{"b": [10]}"#, "`b` has 10, expected features from 0 to 9"),
            ("x.json", r#"{"b": 1}"#, "`b` is not a list of features"),
            ("x.json", r#"{"b": []}"#, "the list `b` is empty"),
            ("x.json", "{}", "has no lists"),
            ("x.txt", "1\nten\n", "line 2: `ten` is not a feature from 0 to 9"),
            ("x.txt", "-1\n", "line 1: `-1` is not a feature"),
            ("x.txt", "\n", "the list `x` is empty"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
