//! What ends a response: tokens of the model, and strings of the recipe, whatever tokens they come in.

use super::Tokenizer;

/// The ends of responses.
pub struct Ends {
    tokens: Vec<i64>,
    strings: Vec<String>,
    /// Whether the text of each token could complete one of the strings.
    may_complete: Vec<bool>,
    /// So many last tokens hold every string that the last one completes.
    tail: usize,
}

impl Ends {
    /// `strings` must not be empty texts.
    pub fn new(tokenizer: &Tokenizer, tokens: Vec<i64>, strings: &[String]) -> Self {
        let last: Vec<char> = strings.iter().filter_map(|string| string.chars().last()).collect();
        let may_complete = |id: i64| {
            // Part of a character may be its last part.
            let text = tokenizer.decode(&[id]).unwrap_or_default();
            text.contains('\u{fffd}') || text.contains(last.as_slice())
        };
        let known = if strings.is_empty() { 0 } else { tokenizer.vocab_size() };
        // Every token is at least one byte.
        let tail = strings.iter().map(String::len).max().unwrap_or(0);
        Self { tokens, strings: strings.to_vec(), may_complete: (0..known).map(may_complete).collect(), tail }
    }

    /// Whether a response ends with the last of its `ids` so far, if it has not ended before.
    pub fn at(&self, tokenizer: &Tokenizer, ids: &[i64]) -> bool {
        let Some(last) = ids.last() else { return false };
        if self.tokens.contains(last) {
            return true;
        }
        let may_complete = usize::try_from(*last).is_ok_and(|id| self.may_complete.get(id) == Some(&true));
        may_complete && {
            let tail = &ids[ids.len().saturating_sub(self.tail)..];
            tokenizer.decode(tail).is_ok_and(|text| self.strings.iter().any(|string| text.contains(string.as_str())))
        }
    }

    /// How many of `ids` a response has that would end at the first end among them.
    pub fn first(&self, tokenizer: &Tokenizer, ids: &[i64]) -> usize {
        (1..=ids.len()).find(|&count| self.at(tokenizer, &ids[..count])).unwrap_or(ids.len())
    }

    /// A response's `text` without what follows its first stop string in the same token.
    pub fn cut<'a>(&self, text: &'a str) -> &'a str {
        let ends = self.strings.iter().filter_map(|string| text.find(string.as_str()).map(|at| at + string.len()));
        &text[..ends.min().unwrap_or(text.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn strings_end_a_response_whatever_their_tokens() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let end = tokenizer.id("<|endoftext|>").unwrap();
        let strings = ["</answer>".to_string(), "no way".to_string(), "é!".to_string()];
        let ends = Ends::new(&tokenizer, vec![end], &strings);
        for (text, kept) in [
            ("<answer>1+2</answer> and on", "<answer>1+2</answer>"),
            ("<answer>1+2</answer", "<answer>1+2</answer"),
            ("there is no way out", "there is no way"),
            ("café! yes", "café!"),
            ("a<|endoftext|>b", "a<|endoftext|>"),
            ("nothing", "nothing"),
        ] {
            // As one token each time, and letter by letter.
            let whole = tokenizer.encode(text).unwrap();
            let special = text.contains("<|");
            let letters: Vec<i64> =
                text.chars().flat_map(|letter| tokenizer.encode(&letter.to_string()).unwrap()).collect();
            for ids in [Some(whole), (!special).then_some(letters)].into_iter().flatten() {
                let count = ends.first(&tokenizer, &ids);
                let text = tokenizer.decode(&ids[..count]).unwrap();
                assert_eq!(ends.cut(&text), kept, "{ids:?}");
                assert_eq!(ends.at(&tokenizer, &ids[..count]), kept != "<answer>1+2</answer" && kept != "nothing");
            }
        }
        assert_eq!(ends.cut("a</answer>b no way"), "a</answer>");
    }
}
