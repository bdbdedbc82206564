//! Texts as a model reads them, and its residual stream over them, a few sequences at a time: what is held does not
//! grow with the texts.

use super::autoencoder::Sae;
use crate::model::Policy;
use crate::rows;
use crate::text::Tokenizer;
use crate::torch::{on_device, padded};
use crate::{OrBadInput, bad};
use anyhow::Result;
use std::path::Path;
use tch::Tensor;

/// Tokens, padding included, that are read at a time.
const TOGETHER: usize = 4096;

/// A text of which the tokens from `first` on are looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    pub ids: Vec<i64>,
    pub first: usize,
    /// Its row in its file, from 1; 0 if it is from none.
    pub row: usize,
}

impl Text {
    /// How many tokens are looked at.
    pub fn len(&self) -> usize {
        self.ids.len() - self.first
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the rows of a file have their texts.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The first of these that a row has is its text.
    pub text: &'a [&'a str],
    /// What is read before it.
    pub prompt: Option<&'a str>,
    /// Whether every row must have it.
    pub every_prompt: bool,
    /// Whether special tokens written out in a text are these, as in what a model wrote, and not text.
    pub special: bool,
}

/// Reads the texts of a file (.jsonl, .json or .parquet), each after its prompt, whose tokens are not looked at.
/// Without a prompt the first token is not: what a model makes of it is the same in every text, and many times as large
/// as anything else (arXiv:2402.17762).
///
/// Texts are cut after `limit` tokens; of those that have none left, how many there are is returned.
///
/// # Errors
/// Bad input: a file that cannot be read, a row without the columns, a file without a text that has tokens.
pub fn texts(file: &Path, columns: Columns, tokenizer: &Tokenizer, limit: usize) -> Result<(Vec<Text>, usize)> {
    let Columns { text, prompt, every_prompt, special } = columns;
    let names: Vec<&str> = text.iter().copied().chain(prompt).collect();
    let (mut all, mut without) = (vec![], 0);
    for row in rows::read(file, &names).bad_input()? {
        let (number, row) = row.bad_input()?;
        let of = |name: &str| rows::field(&row, name).and_then(|value| value.as_str());
        let lacks =
            |names: &[&str]| bad!("{}: expected a text in `{}`", rows::place(file, number), names.join("` or `"));
        let own = text.iter().copied().find_map(of).ok_or_else(|| lacks(text))?;
        let before = prompt.and_then(of);
        if let (true, Some(name), None) = (every_prompt, prompt, before) {
            return Err(lacks(&[name]));
        }
        let before = tokenizer.encode_prompt(before.unwrap_or_default())?;
        let own = if special { tokenizer.encode(own) } else { tokenizer.encode_plain(own) }?;
        let first = before.len().max(1);
        let mut ids = [before, own].concat();
        ids.truncate(limit);
        if ids.len() > first {
            all.push(Text { ids, first, row: number });
        } else {
            without += 1;
        }
    }
    if all.is_empty() {
        return Err(bad!(
            "{}: no row has tokens to look at, among the first {limit} of prompt and text",
            file.display()
        ));
    }
    Ok((all, without))
}

/// The residual stream of a model after one of its layers.
pub struct Residuals<'a> {
    pub policy: &'a Policy,
    /// From 0.
    pub layer: usize,
}

impl Residuals<'_> {
    /// The residual stream [N, H] of the tokens of some texts that are looked at, text by text, in the compute kind.
    pub fn of(&self, texts: &[&Text]) -> Tensor {
        let ids: Vec<&[i64]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let device = self.policy.device();
        tch::no_grad(|| {
            let stream = self.policy.decoder.residual(&padded(&ids, device), self.layer); // [B, T, H]
            let width = stream.size()[1];
            let own = texts
                .iter()
                .zip(0i64..)
                .flat_map(|(text, row)| (text.first..text.ids.len()).map(move |at| row * width + at as i64));
            let own: Vec<i64> = own.collect();
            stream.flatten(0, 1).index_select(0, &on_device(&own, device))
        })
    }

    /// Hands the texts and their residual stream [N, H] to `take`, as many at a time as are read together, in order.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each(&self, texts: &[&Text], mut take: impl FnMut(&[&Text], Tensor) -> Result<()>) -> Result<()> {
        let mut rest = texts;
        while !rest.is_empty() {
            let mut longest = 0;
            let fits = |(count, text): (usize, &&Text)| {
                longest = longest.max(text.ids.len());
                count == 0 || (count + 1) * longest <= TOGETHER
            };
            let count = rest.iter().enumerate().map(fits).take_while(|fits| *fits).count();
            let (now, later) = rest.split_at(count);
            take(now, self.of(now))?;
            rest = later;
        }
        Ok(())
    }

    /// The same, text by text: [n, H].
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each_text(&self, texts: &[&Text], mut take: impl FnMut(&Text, Tensor) -> Result<()>) -> Result<()> {
        self.each(texts, |now, stream| {
            let mut start = 0;
            for text in now {
                let own = stream.narrow(0, start, text.len() as i64);
                start += text.len() as i64;
                take(text, own)?;
            }
            Ok(())
        })
    }

    /// The same, encoded: the activations [n, F] of each text in turn.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn encoded(&self, sae: &Sae, texts: &[&Text], mut take: impl FnMut(&Text, Tensor) -> Result<()>) -> Result<()> {
        self.each_text(texts, |text, own| take(text, tch::no_grad(|| sae.encode(&own))))
    }
}
