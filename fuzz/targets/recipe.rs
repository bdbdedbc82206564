//! A recipe is refused with one message, or written out with its defaults and read as the same.

use ppo_train::recipe::{identity::differences, read_text};

pub fn run(data: &[u8]) {
    super::text(data, |text| read(text, &[], text.len()));
}

/// Reads a recipe with overrides, of together so many bytes.
pub fn read(text: &str, sets: &[String], bytes: usize) {
    match read_text("recipe.toml", text, sets) {
        Err(error) => super::refused(error, bytes),
        Ok((recipe, sources)) => {
            sources.notes.iter().for_each(|note| super::refused(note, bytes));
            let written = toml::to_string(&recipe).expect("a recipe as TOML");
            let (again, _) = read_text("written.toml", &written, &[]).expect("what we write");
            assert_eq!(differences(&recipe, &again), []);
        }
    }
}
