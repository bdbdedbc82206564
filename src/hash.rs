//! Names of contents: SHA-256 in hexadecimal digits.

use crate::open;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

/// The hash of bytes.
pub fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The hash of texts, each with its length, so that it depends on where they end.
pub fn hash_of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        let text = text.as_ref();
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hexadecimal(&hasher.finalize())
}

/// The hash of files, one after another.
///
/// # Errors
/// One of them cannot be read.
pub fn hash_of_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for path in paths {
        io::copy(&mut open(path.as_ref())?, &mut hasher)?;
    }
    Ok(hexadecimal(&hasher.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 64 bits of the SHA-256: a number for a text.
pub fn number(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash(b"abc").as_str(), hash_of_files([file.path()]).unwrap().as_str()), (known, known));
        assert_eq!(number(b"abc"), 0xba78_16bf_8f01_cfea);
    }

    /// The second as Python's hashlib makes it of the same bytes.
    #[test]
    fn a_hash_of_texts_depends_on_where_they_end() {
        assert_ne!(hash_of_texts(["ab", "c"]), hash_of_texts(["a", "bc"]));
        assert_eq!(hash_of_texts(["a"]), "ae6121c88ba555f64c3d812123eb799d128015541f850c5e9bf1d54c08ad8481");
        assert_eq!(hash_of_texts([""; 0]), hash(b""));
    }
}
