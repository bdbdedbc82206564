//! The inputs in `fuzz/seeds` through the functions that `scripts/fuzz` looks for more of them with.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs::{read, read_dir};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn entries(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_parser_reads_or_refuses_its_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let named: BTreeSet<PathBuf> = targets::ALL.iter().map(|(name, _)| root.join(name)).collect();
    assert_eq!(entries(&root), named);
    let (mut seeds, mut failed) = (0, Vec::new());
    for (name, run) in targets::ALL {
        for path in entries(&root.join(name)) {
            let data = read(&path).unwrap();
            // Whole, and as a connection or a disk may cut it.
            let cuts = [0, 1, data.len() / 2, data.len().saturating_sub(1), data.len()];
            for cut in cuts.map(|cut| cut.min(data.len())) {
                seeds += 1;
                if catch_unwind(|| run(&data[..cut])).is_err() {
                    failed.push(format!("{}, {cut} bytes", path.display()));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(seeds > 500, "{seeds}");
}
