//! Rows of claims: JSONL if it begins with a brace, LIAR's columns if there is a tab, else CSV.

use ppo_train::rows::{delimited, lines};
use ppo_train::task::politifact::{CLASSES, Claim, LIAR, Order, claims, class_of_answer};
use std::path::Path;

pub fn run(data: &[u8]) {
    let read = || -> anyhow::Result<(Vec<Claim>, Option<String>)> {
        match data {
            [b'{', ..] => claims(Path::new("a.jsonl"), lines(data, Path::new("a.jsonl")), Order::LIAR2),
            _ if data.contains(&b'\t') => {
                claims(Path::new("a.tsv"), delimited(data, Path::new("a.tsv"), &LIAR)?, Order::LIAR2)
            }
            _ => claims(Path::new("a.csv"), delimited(data, Path::new("a.csv"), &LIAR)?, Order::LIAR),
        }
    };
    match read() {
        Err(error) => super::refused(format!("{error:#}"), data.len()),
        Ok((claims, _)) => claims.iter().for_each(|claim| {
            assert!(claim.class < CLASSES.len());
            assert!(!claim.text.is_empty() && !claim.text.contains(['\n', '\r']));
        }),
    }
    super::text(data, |text| {
        // An answer that names a class names it in capitals too.
        let class = class_of_answer(text);
        assert!(class.is_none_or(|class| class < CLASSES.len()));
        assert!(!text.is_ascii() || class == class_of_answer(&text.to_ascii_uppercase()));
    });
}
