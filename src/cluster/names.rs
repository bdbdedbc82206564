//! What names Kubernetes takes, as its API checks them.

/// A name of one word, such as a namespace: small letters, digits and hyphens, at most 63.
pub fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    bounded(text, 63, inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A name of words with dots, such as a claim's, at most 253 characters.
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The name of a resource or of a label: `NAME` or `DOMAIN/NAME`.
pub fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_name(domain) && is_word(name),
        None => is_word(text),
    }
}

/// The value of a label, which may be empty.
pub fn is_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

/// An image: `REGISTRY/PATH:TAG` or `...@DIGEST`.
pub fn is_image(text: &str) -> bool {
    bounded(text, 1024, |c| c.is_ascii_alphanumeric() || "./:@_-".contains(c)) && !text.ends_with(['/', ':', '@'])
}

/// Letters, digits, hyphens, underscores and dots, at most 63, the first and the last a letter or a digit.
fn is_word(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    bounded(text, 63, |c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends(text.chars().next())
        && ends(text.chars().last())
}

fn bounded(text: &str, most: usize, known: impl Fn(char) -> bool) -> bool {
    (1..=most).contains(&text.len()) && text.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_api_takes() {
        let all = [is_label, is_name, is_key, is_value, is_image];
        let long = "a".repeat(64);
        // Which of them take it: label, name, key, value, image.
        for (text, takers) in [
            ("lab", "11111"),
            ("my-lab.v2", "01111"),
            ("-lab", "00001"),
            ("Lab_1", "00111"),
            ("nvidia.com/gpu", "00101"),
            ("a/b/c", "00001"),
            ("r.example.org:5000/lab/ppo:1", "00001"),
            ("r/i@sha256:ab", "00001"),
            ("r/i:", "00000"),
            ("two words", "00000"),
            ("", "00010"),
            (&long, "00001"),
        ] {
            let found: String = all.iter().map(|takes| if takes(text) { '1' } else { '0' }).collect();
            assert_eq!(found, takers, "{text}");
        }
    }
}
