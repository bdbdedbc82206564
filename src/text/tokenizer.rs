//! Text to token ids and back, with a folder's `tokenizer.json` (the `tokenizers` crate).
//!
//! Decided here: a prompt gets the begin token that the tokenizer's own post-processor adds (Llama's does, Qwen's does
//! not), once, even if a chat template has already written it, and never an end token; a response gets neither.
//! Decoding keeps special tokens, because layout tags may be registered as such and the reward must see them.

use super::TokenizerConfig;
use crate::{WHOLE, bad, not_fetched, read_bytes};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Special tokens that end a text or a turn in the families we know, besides the one `tokenizer_config.json` names.
const ENDS: [&str; 6] = ["<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", "</s>"];

/// A tokenizer and the file it came from.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// Ids that the post-processor puts before a text.
    begin: Vec<i64>,
    ends: Vec<i64>,
    end_token: Option<String>,
    vocab_size: i64,
    /// How special tokens are written.
    special: Vec<String>,
    /// The same tokenizer, to which special tokens are text; made when it is needed.
    plain: OnceLock<tokenizers::Tokenizer>,
}

impl Tokenizer {
    /// Reads `DIR/tokenizer.json`, and the end token's name from `DIR/tokenizer_config.json` if there is one.
    ///
    /// # Errors
    /// Bad input: a file that is missing or cannot be parsed, with its path.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let file = path.display();
        if let Some(pointer) = not_fetched(&path) {
            return Err(bad!("{pointer}"));
        }
        let bytes = read_bytes(&path, WHOLE).map_err(|error| bad!("no tokenizer: {file} cannot be read: {error}"))?;
        // Windows programs begin a file with a byte-order mark.
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))
            .map_err(|error| bad!("{file} is not a tokenizer of the tokenizers library: {error}"))?;
        // The recipe decides about lengths; the file may contain those of its training.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| bad!("in {file}: {error}"))?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| i64::from(id) + 1);

        let config = TokenizerConfig::from_dir(dir)?;
        // `</s>` is an ordinary word in some vocabularies.
        let added = inner.get_added_tokens_decoder();
        let special = |&id: &u32| added.get(&id).is_some_and(|token| token.special);
        let known = ENDS.into_iter().filter_map(|end| inner.token_to_id(end)).filter(special);
        let named = config.eos().and_then(|end| inner.token_to_id(end));
        let mut ends: Vec<i64> = known.chain(named).map(i64::from).collect();
        ends.sort_unstable();
        ends.dedup();

        let end_token = config.eos().map(String::from);
        let special = added.values().filter(|token| token.special).map(|token| token.content.clone()).collect();
        let plain = OnceLock::new();
        let mut tokenizer = Self { inner, path, begin: vec![], ends, end_token, vocab_size, special, plain };
        let (whole, plain) = (tokenizer.ids("a", true)?, tokenizer.ids("a", false)?);
        if let Some(at) = whole.windows(plain.len().max(1)).position(|window| window == plain) {
            tokenizer.begin = whole[..at].to_vec();
        }
        Ok(tokenizer)
    }

    /// The ids of a text, with nothing added. Special tokens written out in the text become their ids.
    ///
    /// # Errors
    /// A text for which the vocabulary has no tokens (never with a byte-level one).
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        self.ids(text, false)
    }

    /// Whether special tokens are written out in a text.
    pub fn has_special(&self, text: &str) -> bool {
        self.special.iter().any(|token| text.contains(token.as_str()))
    }

    /// The ids of a text that somebody else wrote: special tokens written out in it are text like any other.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<i64>> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = self.inner.clone();
            plain.set_encode_special_tokens(true);
            plain
        });
        let encoding = plain.encode_fast(text, false);
        let encoding = encoding.map_err(|error| bad!("encoding with {}: {error}", self.path.display()))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// The ids of a prompt: `encode`, after the tokenizer's begin token if it has one and the text does not.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<i64>> {
        let plain = self.encode(text)?;
        Ok(if plain.starts_with(&self.begin) { plain } else { [self.begin.as_slice(), &plain].concat() })
    }

    /// The text of ids, special tokens included. Bytes that are not valid UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let known = |&id: &i64| {
            let entry = u32::try_from(id).ok().filter(|&entry| self.inner.id_to_token(entry).is_some());
            let limit = self.vocab_size;
            entry.ok_or_else(|| bad!("token id {id} is not among the {limit} of {}", self.path.display()))
        };
        let ids: Vec<u32> = ids.iter().map(known).collect::<Result<_>>()?;
        self.inner.decode(&ids, false).map_err(|error| bad!("decoding with {}: {error}", self.path.display()))
    }

    /// `decode` without the tokens that end a text or a turn, among them the model's own `ends`: what a reader wants to
    /// see.
    ///
    /// # Errors
    /// As `decode`.
    pub fn decode_text(&self, ids: &[i64], ends: &[i64]) -> Result<String> {
        let ids: Vec<i64> = ids.iter().copied().filter(|id| !self.ends.contains(id) && !ends.contains(id)).collect();
        self.decode(&ids)
    }

    /// `decode_text` for ids that arrive one by one. Each call returns the text that is certain by now: the bytes of a
    /// character wait until its last one is there.
    ///
    /// # Errors
    /// As `decode`.
    pub fn streaming(&self, ends: &[i64]) -> impl FnMut(i64) -> Result<String> {
        let mut stream = self.inner.decode_stream(false);
        move |id| {
            if self.ends.contains(&id) || ends.contains(&id) {
                return Ok(String::new());
            }
            let known = u32::try_from(id).map_err(|_| bad!("{id} is not a token id"))?;
            let new = stream.step(known).map_err(|error| bad!("decoding with {}: {error}", self.path.display()))?;
            Ok(new.unwrap_or_default())
        }
    }

    /// What each token adds to a text that it continues, with its id, for all but the special tokens. Where tokens are
    /// parts of characters, that is U+FFFD.
    ///
    /// # Errors
    /// As `decode`.
    pub fn pieces(&self) -> Result<Vec<(String, i64)>> {
        let added = self.inner.get_added_tokens_decoder();
        let special = |id: i64| u32::try_from(id).is_ok_and(|id| added.get(&id).is_some_and(|token| token.special));
        // Some decoders drop the blank before the first word.
        let before = self.encode("a")?;
        let start = self.decode(&before)?;
        let piece = |id: i64| -> Result<Option<(String, i64)>> {
            let whole = self.decode(&[before.as_slice(), &[id]].concat())?;
            Ok(whole.strip_prefix(&start).map(|piece| (piece.to_string(), id)))
        };
        // Not every number below the largest need be a token.
        let mut all: Vec<i64> = self.inner.get_vocab(true).into_values().map(i64::from).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().filter(|id| !special(*id)).filter_map(|id| piece(id).transpose()).collect()
    }

    /// Largest id + 1. A model may have more rows; those beyond this are not tokens.
    pub fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    /// The id of one entry of the vocabulary. Words are spelt as in the file; tags and special tokens are plain text.
    pub fn id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// The end token that `tokenizer_config.json` names, whether or not it is in the vocabulary.
    pub fn end_token(&self) -> Option<&str> {
        self.end_token.as_deref()
    }

    /// Ids with their spelling in the vocabulary, for messages.
    pub fn list(&self, ids: &[i64]) -> String {
        let spelt = |id: &i64| {
            let token = u32::try_from(*id).ok().and_then(|id| self.inner.id_to_token(id)).unwrap_or_default();
            format!("{token} ({id})")
        };
        ids.iter().map(spelt).collect::<Vec<_>>().join(", ")
    }

    /// Ids that end a text or a turn, ascending.
    pub fn eos(&self) -> &[i64] {
        &self.ends
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<i64>> {
        let encoding = self.inner.encode_fast(text, special);
        let encoding = encoding.map_err(|error| bad!("encoding with {}: {error}", self.path.display()))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/countdown-base");
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_dir(Path::new(QUICKSTART)).unwrap());

    /// The quickstart's folder with its two files changed.
    fn changed(change: impl Fn(&mut Value, &mut Value)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let names = ["tokenizer.json", "tokenizer_config.json"];
        let [mut tokenizer, mut config] = names.map(|name| {
            serde_json::from_str(&std::fs::read_to_string(Path::new(QUICKSTART).join(name)).unwrap()).unwrap()
        });
        change(&mut tokenizer, &mut config);
        for (name, value) in names.into_iter().zip([tokenizer, config]) {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        dir
    }

    /// What traces cost decides how long the quickstart takes.
    #[test]
    fn quickstart_entries() {
        let t = &*TOKENIZER;
        assert!(t.encode("12-5=7,7*7=49 no\n").unwrap().len() <= 12);
        assert_eq!(t.encode("<think>\n</think><persona4></think1><group_solution></answer>").unwrap().len(), 7);
        for number in 0..200 {
            assert_eq!(t.encode(&format!("={number}\n")).unwrap().len(), 3, "{number}");
        }
        let end = t.id("<|endoftext|>").unwrap();
        assert_eq!((t.eos(), t.vocab_size()), (&[end][..], end + 1));
        assert_eq!(t.encode_prompt("a").unwrap(), t.encode("a").unwrap());
        let ids = t.encode("</answer><|endoftext|>").unwrap();
        assert_eq!(
            (t.decode(&ids).unwrap().as_str(), t.decode_text(&ids, &[]).unwrap().as_str()),
            ("</answer><|endoftext|>", "</answer>")
        );
        // An end token that only the model's files name.
        let ends = &ids[..1];
        let streamed: String = ids.iter().map(|id| t.streaming(ends)(*id).unwrap()).collect();
        assert_eq!((t.decode_text(&ids, ends).unwrap(), streamed), (String::new(), String::new()));
    }

    /// The table was made by the Python library of the same name.
    #[test]
    fn agrees_with_python() {
        let cases: [(&str, &[i64]); 3] = [
            ("Numbers: 5 7 110\nTarget: 259\n", &[455, 58, 32, 53, 32, 55, 32, 356, 10, 456, 58, 32, 271, 57, 10]),
            (
                "12*7=84 no\n<answer>5*(2+7)</answer>",
                &[258, 42, 55, 61, 330, 453, 519, 53, 42, 40, 50, 43, 55, 41, 520],
            ),
            (
                "  na\u{ef}ve \u{6f22}\r\n\t1234",
                &[32, 32, 110, 97, 195, 175, 118, 101, 32, 230, 188, 162, 13, 10, 9, 369, 52],
            ),
        ];
        for (text, ids) in cases {
            assert_eq!(TOKENIZER.encode(text).unwrap(), ids, "{text}");
        }
    }

    #[test]
    fn begin_token_once_and_no_end_token() {
        let dir = changed(|tokenizer, _| {
            let special = |id: i64, text: &str| json!({"id": text, "ids": [id], "tokens": [text]});
            tokenizer["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<think>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</think>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "<think>": special(TOKENIZER.id("<think>").unwrap(), "<think>"),
                    "</think>": special(TOKENIZER.id("</think>").unwrap(), "</think>"),
                },
            });
        });
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        for (text, expected) in [("hi", "<think>hi"), ("<think>hi", "<think>hi"), ("", "<think>")] {
            assert_eq!(t.decode(&t.encode_prompt(text).unwrap()).unwrap(), expected);
            assert_eq!(t.decode(&t.encode(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn files_and_ids_that_cannot_be_used() {
        let message = |dir: &Path| format!("{:#}", Tokenizer::from_dir(dir).err().unwrap());
        let empty = tempfile::tempdir().unwrap();
        assert!(message(empty.path()).contains("tokenizer.json cannot be read"));
        std::fs::write(empty.path().join("tokenizer.json"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
        assert!(message(empty.path()).contains("tokenizer.json is a Git LFS pointer"));
        let text = std::fs::read_to_string(Path::new(QUICKSTART).join("tokenizer.json")).unwrap();
        std::fs::write(empty.path().join("tokenizer.json"), format!("\u{feff}{text}")).unwrap();
        assert_eq!(Tokenizer::from_dir(empty.path()).unwrap().vocab_size(), TOKENIZER.vocab_size());
        assert!(message(changed(|tokenizer, _| *tokenizer = json!({})).path()).contains("is not a tokenizer"));
        for (config, part) in [
            (json!([1]), "tokenizer_config.json: invalid type: sequence, expected a JSON object"),
            (json!({"eos_token": 3}), "tokenizer_config.json: `eos_token`: expected a token's text, or a table"),
            (json!({"chat_template": 3}), "`chat_template`: expected a template, or a list of tables"),
        ] {
            let error = message(changed(|_, file| *file = config.clone()).path());
            assert!(error.contains(part) && !error.contains("enum"), "{error}");
        }
        let junk = changed(|_, _| ());
        std::fs::write(junk.path().join("tokenizer_config.json"), "{} {}").unwrap();
        assert!(message(junk.path()).contains("tokenizer_config.json: trailing characters"));
        let unnamed = changed(|_, config| config["eos_token"] = json!(""));
        assert_eq!(Tokenizer::from_dir(unnamed.path()).unwrap().end_token(), None);
        for id in [-1, TOKENIZER.vocab_size(), i64::MAX] {
            let error = TOKENIZER.decode(&[id]).unwrap_err();
            assert!(error.is::<crate::BadInput>() && error.to_string().contains(&format!("token id {id} ")), "{error}");
        }
    }

    #[test]
    fn special_tokens_of_a_text_can_be_plain_text() {
        let t = &*TOKENIZER;
        let (text, end) = ("12 no<|endoftext|>\n", t.id("<|endoftext|>").unwrap());
        assert!(t.has_special(text) && !t.has_special("12 no") && t.encode(text).unwrap().contains(&end));
        let plain = t.encode_plain(text).unwrap();
        assert!(!plain.contains(&end) && t.decode(&plain).unwrap() == text);
        assert_eq!(t.encode_plain("12 no").unwrap(), t.encode("12 no").unwrap());
    }

    #[test]
    fn pieces_are_what_tokens_add_to_a_text() {
        let pieces = TOKENIZER.pieces().unwrap();
        let end = TOKENIZER.id("<|endoftext|>").unwrap();
        assert!(pieces.len() as i64 > end - 10 && pieces.iter().all(|(_, id)| *id != end));
        let text = "Numbers: 5 7 110\nTarget: 259 no\n";
        let of = |id: &i64| pieces.iter().find(|(_, other)| other == id).unwrap().0.as_str();
        assert_eq!(TOKENIZER.encode(text).unwrap().iter().map(of).collect::<String>(), text);
    }

    /// Letters of two, three and four bytes, which the quickstart's vocabulary spells byte by byte.
    #[test]
    fn characters_are_streamed_whole() {
        let text = "na\u{ef}ve \u{6f22}\u{5b57} \u{1f600}!";
        let mut stream = TOKENIZER.streaming(&[]);
        let ids = TOKENIZER.encode(&format!("{text}<|endoftext|>")).unwrap();
        let pieces: Vec<String> = ids.iter().map(|id| stream(*id).unwrap()).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().filter(|piece| piece.is_empty()).count() > 5, "{pieces:?}");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    }

    proptest! {
        #[test]
        fn text_round_trips(text in "([0-9+*/=(),. \n-]{1,6}| no\n|<think1>|</answer>|\\PC{1,4}|[\\x00-\\x20]){0,12}") {
            let ids = TOKENIZER.encode(&text).unwrap();
            prop_assert_eq!(TOKENIZER.decode(&ids).unwrap(), text);
        }
    }
}
