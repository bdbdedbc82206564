//! Texts of a wanted length in tokens.

use crate::text::Tokenizer;
use anyhow::Result;

/// A text with its number of tokens, so that no text is encoded twice to be measured.
pub struct Measured {
    pub text: String,
    pub tokens: usize,
}

impl Measured {
    /// # Errors
    /// A text that cannot be encoded.
    pub fn of(tokenizer: &Tokenizer, text: String) -> Result<Self> {
        Ok(Self { tokens: tokenizer.encode(&text)?.len(), text })
    }
}

/// Of a series of texts, each next one longer or each shorter, the one whose number of tokens is nearest to `wanted`.
///
/// # Errors
/// That of a text; none at all.
pub fn nearest(wanted: usize, texts: impl IntoIterator<Item = Result<Measured>>) -> Result<String> {
    let mut best: Option<Measured> = None;
    for text in texts {
        let text = text?;
        match &best {
            Some(nearer) if text.tokens.abs_diff(wanted) >= nearer.tokens.abs_diff(wanted) => break,
            _ => best = Some(text),
        }
    }
    best.map(|best| best.text).ok_or_else(|| anyhow::anyhow!("there is no text to choose from"))
}

/// Lists of `units` with ever fewer of them: from the middle, so that a beginning and an end are left.
pub fn shortened<T: Clone>(units: &[T]) -> impl Iterator<Item = Vec<T>> {
    let mut left = Some(units.to_vec());
    std::iter::from_fn(move || {
        let now = left.take()?;
        if now.len() > 2 {
            let mut next = now.clone();
            next.remove(now.len() / 2);
            left = Some(next);
        }
        Some(now)
    })
}

/// Lists of `units` followed by `link` and then by ever more of them again, round and round.
pub fn lengthened<'a>(units: &[&'a str], link: &'a str) -> impl Iterator<Item = Vec<&'a str>> + use<'a> {
    let units = units.to_vec();
    (0..).map(move |more| {
        let again = units.iter().cycle().take(more).copied();
        let link = (more > 0 && !units.is_empty()).then_some(link);
        units.iter().copied().chain(link).chain(again).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_nearest_length_is_found_from_above_and_below() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        // One token per number, and one for the blank before it.
        let text = |count: usize| Measured::of(&tokenizer, vec!["7"; count].join("+"));
        let tokens = |text: &str| tokenizer.encode(text).unwrap().len();
        let chosen = |wanted, counts: Vec<usize>| tokens(&nearest(wanted, counts.into_iter().map(text)).unwrap());
        assert_eq!(text(4).unwrap().tokens, 7);
        for (wanted, length) in [(0, 1), (7, 7), (8, 7), (9, 9), (99, 19)] {
            assert_eq!(chosen(wanted, (1..=10).collect()), length, "{wanted}");
            assert_eq!(
                chosen(wanted.max(1), (1..=10).rev().collect()),
                if wanted == 8 { 9 } else { length },
                "{wanted}"
            );
        }
    }

    #[test]
    fn units_are_left_out_of_the_middle_or_repeated_from_the_start() {
        let lists: Vec<_> = shortened(&["a", "b", "c", "d"]).collect();
        assert_eq!(lists, [vec!["a", "b", "c", "d"], vec!["a", "b", "d"], vec!["a", "d"]]);
        assert_eq!(shortened(&["a"]).count(), 1);
        let lists: Vec<_> = lengthened(&["a", "b"], "again").take(4).collect();
        assert_eq!(
            lists,
            [
                vec!["a", "b"],
                vec!["a", "b", "again", "a"],
                vec!["a", "b", "again", "a", "b"],
                vec!["a", "b", "again", "a", "b", "a"]
            ]
        );
    }
}
