//! What ends a response: tokens of the model, and strings of the recipe, whatever tokens they come in.

use super::Tokenizer;

/// The tokens that end a text. Three files may name them, and they may disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTokens {
    /// Whatever any file names; if none does, the special tokens that end texts in the families we know.
    pub ids: Vec<i64>,
    /// What a written text should end with: the tokenizer's end token, or else the first of `ids`.
    pub written: Option<i64>,
    /// What the files disagree about, or name in vain.
    pub notes: Vec<String>,
}

impl EndTokens {
    /// Unites the ids that `config.json` and `generation_config.json` name with the tokenizer's end token. `rows`: the
    /// size of the model's vocabulary.
    pub fn unite(config: &[i64], generation: &[i64], tokenizer: &Tokenizer, rows: i64) -> Self {
        let mut notes = Vec::new();
        let token = tokenizer.end_token();
        let named = token.and_then(|token| tokenizer.id(token));
        if let (Some(token), None) = (token, named) {
            notes
                .push(format!("note: tokenizer_config.json has the end token {token}, which is not in tokenizer.json"));
        }
        let known = |id: i64| (0..rows.min(tokenizer.vocab_size())).contains(&id);
        let sources = [
            ("config.json", config.to_vec()),
            ("generation_config.json", generation.to_vec()),
            ("tokenizer_config.json", named.into_iter().collect()),
        ];
        let mut named = Vec::new();
        for (file, ids) in sources {
            let (ids, unknown): (Vec<i64>, Vec<i64>) = ids.into_iter().partition(|id| known(*id));
            for id in unknown {
                notes.push(format!("note: {file} ends texts at the id {id}, which is not in the vocabulary"));
            }
            if !ids.is_empty() {
                named.push((file, ids));
            }
        }
        let mut ids: Vec<i64> = named.iter().flat_map(|(_, ids)| ids).copied().collect();
        let written = named.last().filter(|(file, _)| *file == "tokenizer_config.json").map(|(_, ids)| ids[0]);
        if ids.is_empty() {
            ids = tokenizer.eos().iter().copied().filter(|id| known(*id)).collect();
            if !ids.is_empty() {
                notes.push(format!("note: no file names an end token: responses end at {}", tokenizer.list(&ids)));
            }
        }
        let sorted = |ids: &[i64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        if named.windows(2).any(|pair| sorted(&pair[0].1) != sorted(&pair[1].1)) {
            let list: Vec<String> =
                named.iter().map(|(file, ids)| format!("{file} has {}", tokenizer.list(&sorted(ids)))).collect();
            notes.push(format!("note: end tokens differ: {}; responses end at any of them", list.join(", ")));
        }
        let mut seen = Vec::new();
        ids.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
        Self { written: written.or(ids.first().copied()), ids, notes }
    }
}

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

    /// The tokens among them.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
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
    fn end_tokens_are_those_of_all_files() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(base.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
        let unite = |config: &[i64], generation: &[i64], token: &str| {
            let json = format!("{{\"eos_token\": {token}}}");
            std::fs::write(folder.path().join("tokenizer_config.json"), json).unwrap();
            let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
            let ends = EndTokens::unite(config, generation, &tokenizer, 1000);
            (ends.ids, ends.written, ends.notes.join("\n"))
        };
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        let (end, tag) = (tokenizer.id("<|endoftext|>").unwrap(), tokenizer.id("</answer>").unwrap());
        let (text, answer) = (r#""<|endoftext|>""#, r#""</answer>""#);
        assert_eq!(unite(&[end], &[end, end], text), (vec![end], Some(end), String::new()));
        assert_eq!(unite(&[end], &[], "null"), (vec![end], Some(end), String::new()));
        let (ids, written, note) = unite(&[end], &[], answer);
        assert_eq!((ids, written), (vec![end, tag], Some(tag)));
        let [end_text, tag_text] = [format!("<|endoftext|> ({end})"), format!("</answer> ({tag})")];
        assert_eq!(
            note,
            format!(
                "note: end tokens differ: config.json has {end_text}, tokenizer_config.json has {tag_text}; \
                 responses end at any of them"
            )
        );
        let (ids, _, note) = unite(&[end], &[tag], text);
        assert_eq!(ids, [end, tag]);
        assert!(note.contains(&format!(", generation_config.json has {tag_text}, tokenizer_config")), "{note}");
        for (odd, file) in [(-1, "config.json"), (999, "config.json")] {
            let (ids, written, note) = unite(&[odd, end], &[], text);
            assert_eq!((ids, written), (vec![end], Some(end)));
            assert_eq!(note, format!("note: {file} ends texts at the id {odd}, which is not in the vocabulary"));
        }
        let (ids, written, note) = unite(&[], &[], "null");
        assert_eq!((ids, written), (vec![end], Some(end)));
        assert_eq!(note, format!("note: no file names an end token: responses end at {end_text}"));
        let (ids, _, note) = unite(&[end], &[], r#""<|im_end|>""#);
        assert_eq!(ids, [end]);
        assert!(note.contains("has the end token <|im_end|>, which is not in tokenizer.json"), "{note}");
    }

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
