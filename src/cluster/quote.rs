//! Words that a shell, or sbatch, reads as they were meant.

use crate::BadInput;
use std::path::Path;

/// Characters that no shell gives a meaning, wherever they are.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:@%,+=".contains(c))
}

/// A path as text of one line. `what`: what it is, for people.
///
/// # Errors
/// Bad input: it is not UTF-8, or has control characters, which no line of a script could hold.
pub fn text<'a>(path: &'a Path, what: &str) -> Result<&'a str, BadInput> {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => Err(BadInput(format!("{what} {path:?} cannot be written into a script: expected a path of plain text"))),
    }
}

/// A word as every shell reads it.
pub fn shell(word: &str) -> String {
    if is_plain(word) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A line `#SBATCH --name=value`, as sbatch reads it: it knows quotes and backslashes, but no variables.
pub fn sbatch(name: &str, value: &str) -> String {
    if is_plain(value) {
        return format!("#SBATCH --{name}={value}");
    }
    format!("#SBATCH --{name}=\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// A path in sbatch's `--output`, in which % has a meaning.
///
/// # Errors
/// Bad input: a backslash, after which Slurm would replace nothing.
pub fn pattern(path: &str) -> Result<String, BadInput> {
    match path.contains('\\') {
        true => {
            Err(BadInput(format!("Slurm cannot write logs to {path}: choose a path without backslashes with --out")))
        }
        false => Ok(path.replace('%', "%%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_the_words_that_were_meant() {
        let words =
            ["plain", "", "two words", "it's", "$(echo no)", "`no`", "a\"b", "~", "*", "-n", "a\\", "!x", "é;#&"];
        for shell_name in ["sh", "bash"] {
            let all: Vec<String> = words.iter().map(|word| shell(word)).collect();
            let line = format!("printf '%s|' {}", all.join(" "));
            let read = Command::new(shell_name).args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), words.map(|word| format!("{word}|")).concat());
        }
        assert_eq!(sbatch("account", "a b\"\\"), r##"#SBATCH --account="a b\"\\""##);
        assert_eq!(pattern("/a 50%/x").unwrap(), "/a 50%%/x");
        assert!(pattern("/a\\b").is_err() && text(Path::new("a\nb"), "the recipe").is_err());
    }
}
