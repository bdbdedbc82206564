//! A parquet file, of which the crate `parquet` reads what we ask for: rows, or a refusal.

use ppo_train::rows::read;

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("rows.parquet");
    std::fs::write(&path, data).expect("room for a file");
    match read(&path, &["a", "b"]) {
        Err(error) => super::refused(format!("{error:#}"), data.len()),
        Ok(rows) => {
            rows.take(64).filter_map(Result::err).for_each(|error| super::refused(format!("{error:#}"), 1 << 20))
        }
    }
}
