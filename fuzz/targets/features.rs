//! Lists of features and figures of features that somebody else wrote.

use ppo_train::sae::{Lists, matched, read_figures};

/// Features of the autoencoder they are about.
const FEATURES: i64 = 4;

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    for name in ["personality.json", "personality.txt"] {
        let file = dir.path().join(name);
        std::fs::write(&file, data).expect("room for a file");
        match Lists::read(&file, FEATURES) {
            Err(error) => super::refused(format!("{error:#}"), data.len()),
            Ok(Lists(lists)) => {
                assert!(!lists.is_empty());
                for (_, list) in lists {
                    assert!(!list.is_empty() && list.windows(2).all(|pair| pair[0] < pair[1]), "{list:?}");
                    assert!(list.iter().all(|feature| (0..FEATURES).contains(feature)), "{list:?}");
                }
            }
        }
    }
    let file = dir.path().join("figures.jsonl");
    std::fs::write(&file, data).expect("room for a file");
    match read_figures(&file, FEATURES) {
        Err(error) => super::refused(format!("{error:#}"), data.len()),
        Ok(all) => {
            assert_eq!(all.len() as i64, FEATURES);
            let controls = matched(&all, 1, 2, 5);
            assert!(controls.len() <= 2 && !controls.contains(&1), "{controls:?}");
        }
    }
}
