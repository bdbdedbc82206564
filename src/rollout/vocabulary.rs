//! The texts of a vocabulary's tokens, sorted, so that an acceptor can find all those that may come next.
//!
//! Only tokens of printable ASCII are of use: no grammar accepts anything else. Special tokens are of none, whatever
//! their text, because they mean something else than they say.

use crate::bad;
use crate::grammar::Acceptor;
use crate::text::Tokenizer;
use anyhow::Result;
use std::collections::HashMap;

/// Printable ASCII.
const PRINTABLE: std::ops::RangeInclusive<u8> = b' '..=b'~';

/// A vocabulary as grammars see it.
pub struct Vocabulary {
    /// Sorted by text.
    tokens: Vec<(String, i64)>,
    /// How many bytes each of them has in common with the one before it.
    shared: Vec<usize>,
    /// The place of each id in `tokens`.
    places: HashMap<i64, usize>,
}

/// Tokens that may come next.
pub struct Allowed {
    pub ids: Vec<i64>,
    /// The most tokens that may be needed after one of them to complete the text.
    pub need: usize,
}

impl Vocabulary {
    /// The vocabulary of a tokenizer, as far as its ids are below `limit`.
    ///
    /// # Errors
    /// Bad input: a printable character is no token by itself, so that there are texts which cannot be finished.
    pub fn new(tokenizer: &Tokenizer, limit: i64) -> Result<Self> {
        let mut tokens: Vec<(String, i64)> = tokenizer.pieces()?;
        tokens.retain(|(text, id)| *id < limit && !text.is_empty() && text.bytes().all(|b| PRINTABLE.contains(&b)));
        tokens.sort_unstable();
        let single = |c: char| tokens.binary_search_by(|(text, _)| text.as_str().cmp(c.encode_utf8(&mut [0; 4])));
        let missing: String = PRINTABLE.map(char::from).filter(|c| single(*c).is_err()).collect();
        if !missing.is_empty() {
            return Err(bad!(
                "this tokenizer has no tokens for the characters {missing}: JSON cannot be spelt with it"
            ));
        }
        let common = |pair: &[(String, i64)]| {
            pair[0].0.bytes().zip(pair[1].0.bytes()).take_while(|(first, second)| first == second).count()
        };
        let shared = std::iter::once(0).chain(tokens.windows(2).map(common)).collect();
        let places = tokens.iter().enumerate().map(|(at, (_, id))| (*id, at)).collect();
        Ok(Self { tokens, shared, places })
    }

    /// The text of a token; none if it is never allowed.
    pub fn text(&self, id: i64) -> Option<&str> {
        self.places.get(&id).map(|&at| self.tokens[at].0.as_str())
    }

    /// The tokens that `acceptor` may read next, and after which the text can be completed in `left` more tokens.
    pub fn allowed(&self, acceptor: &Acceptor, left: usize) -> Allowed {
        let mut allowed = Allowed { ids: vec![], need: 0 };
        // The acceptor after 0, 1, .. bytes of the current token, as far as it accepts them.
        let mut path = vec![acceptor.clone()];
        let mut refused_at = usize::MAX;
        for ((text, id), shared) in self.tokens.iter().zip(&self.shared) {
            if *shared > refused_at {
                continue;
            }
            refused_at = usize::MAX;
            path.truncate(shared + 1);
            for (at, byte) in text.bytes().enumerate().skip(*shared) {
                let mut next = path[at].clone();
                if !next.read(byte) {
                    refused_at = at;
                    break;
                }
                path.push(next);
            }
            let need = path[path.len() - 1].shortest();
            if refused_at == usize::MAX && need <= left {
                allowed.ids.push(*id);
                allowed.need = allowed.need.max(need);
            }
        }
        allowed
    }
}
