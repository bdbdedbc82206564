//! Where a feature is most active: the tokens and what stands around them, as text and as a page.

use super::stream::Text;
use crate::text::{Tokenizer, visible};
use crate::torch::{on_device, to_host};
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write;
use tch::Tensor;

/// A token that activates a feature, with its neighbours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Context {
    pub feature: i64,
    /// The file of the text that it is from, and its row there.
    pub file: String,
    pub row: usize,
    /// Its place among the text's tokens.
    pub token: usize,
    /// The feature's activation there.
    pub activation: f64,
    /// The tokens around it, from the left to the right, each with its own activation.
    pub tokens: Vec<(String, f64)>,
    /// Which of them it is.
    pub at: usize,
}

/// The texts in which chosen features are most active, each by its most active token.
pub struct Contexts {
    features: Vec<i64>,
    /// How many are kept for each feature.
    most: usize,
    /// Tokens to either side.
    around: usize,
    /// By feature, the most active first: activation, text, token, and the activations of the tokens around.
    found: Vec<Vec<Found>>,
}

struct Found {
    activation: f32,
    file: String,
    row: usize,
    token: usize,
    /// Of the first neighbour that is shown.
    first: usize,
    ids: Vec<i64>,
    values: Vec<f32>,
}

impl Contexts {
    /// Nothing yet.
    pub fn new(features: Vec<i64>, most: usize, around: usize) -> Self {
        let found = features.iter().map(|_| vec![]).collect();
        Self { features, most, around, found }
    }

    /// Looks at the next text, of a file of this name, and its activations [n, F].
    pub fn add(&mut self, file: &str, text: &Text, activations: &Tensor) {
        let chosen = on_device(&self.features, activations.device());
        let own = activations.index_select(1, &chosen).transpose(0, 1).contiguous(); // [chosen, n]
        let width = text.len();
        for (values, found) in to_host(&own).chunks(width.max(1)).zip(&mut self.found) {
            let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            let Some((at, &activation)) = best.filter(|(_, value)| **value > 0.0) else { continue };
            let place = found.partition_point(|other| other.activation >= activation);
            if place >= self.most {
                continue;
            }
            let (first, end) = (at.saturating_sub(self.around), (at + self.around + 1).min(width));
            found.truncate(self.most - 1);
            found.insert(
                place,
                Found {
                    activation,
                    file: file.to_string(),
                    row: text.row,
                    token: text.first + at,
                    first: text.first + first,
                    ids: text.ids[text.first + first..text.first + end].to_vec(),
                    values: values[first..end].to_vec(),
                },
            );
        }
    }

    /// What was found, feature by feature, the most active first.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn read(&self, tokenizer: &Tokenizer) -> Result<Vec<Context>> {
        let mut all = vec![];
        for (feature, found) in self.features.iter().zip(&self.found) {
            for one in found {
                // Parts of a character wait for its last token.
                let mut streaming = tokenizer.streaming(&[]);
                let token = |(id, value): (&i64, &f32)| Ok((streaming(*id)?, f64::from(*value)));
                all.push(Context {
                    feature: *feature,
                    file: one.file.clone(),
                    row: one.row,
                    token: one.token,
                    activation: f64::from(one.activation),
                    tokens: one.ids.iter().zip(&one.values).map(token).collect::<Result<_>>()?,
                    at: one.token - one.first,
                });
            }
        }
        Ok(all)
    }
}

impl Context {
    /// The words, the token between brackets.
    pub fn line(&self) -> String {
        let mark = |(at, (token, _)): (usize, &(String, f64))| {
            if at == self.at { format!("[{token}]") } else { token.clone() }
        };
        self.tokens.iter().enumerate().map(mark).collect()
    }
}

/// A page of contexts, feature by feature and the most active first, that needs nothing else: each token is the darker,
/// the more active its feature is there.
pub fn page(title: &str, contexts: &[Context]) -> String {
    const STYLE: &str = "body{font:15px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
        color:#1a1a1a;background:#fff}h2{margin:2rem 0 .5rem;font-size:1.1rem}p{margin:.3rem 0;white-space:pre-wrap;\
        font-family:ui-monospace,monospace;font-size:13px;border-left:3px solid #ddd;padding-left:.6rem}\
        small{color:#555}b{font-weight:700;text-decoration:underline}";
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n",
        title = escaped(title)
    );
    let (mut shown, mut most) = (None, 1.0);
    for context in contexts {
        if shown != Some(context.feature) {
            let _ = writeln!(out, "<h2>Feature {}, at most {:.3}</h2>", context.feature, context.activation);
            (shown, most) = (Some(context.feature), context.activation);
        }
        let place = format!("{}, row {}", escaped(&context.file), context.row);
        let _ = write!(out, "<p><small>{:.3}, {place}</small> ", context.activation);
        for (at, (token, value)) in context.tokens.iter().enumerate() {
            let word = escaped(token);
            let word = if at == context.at { format!("<b>{word}</b>") } else { word };
            let _ = match (0.7 * value / most, *value > 0.0) {
                (strength, true) => {
                    write!(
                        out,
                        "<span style=\"background:rgba(230,140,0,{strength:.2})\" title=\"{value:.3}\">{word}</span>"
                    )
                }
                _ => write!(out, "{word}"),
            };
        }
        let _ = writeln!(out, "</p>");
    }
    out
}

/// As HTML, with what would act unseen made visible.
fn escaped(text: &str) -> String {
    visible(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::test_device;

    fn text(ids: &[i64], first: usize) -> Text {
        Text { ids: ids.to_vec(), first, row: ids[ids.len() - 1] as usize }
    }

    #[test]
    fn the_most_active_token_of_the_most_active_texts_is_kept() {
        let mut contexts = Contexts::new(vec![1, 0], 2, 1);
        let of = |values: &[f32]| on_device(values, test_device()).view([-1, 2]);
        contexts.add("a", &text(&[9, 5, 6, 7], 1), &of(&[0.0, 1.0, 0.0, 3.0, 0.0, 2.0]));
        contexts.add("a", &text(&[9, 8], 1), &of(&[4.0, 0.0]));
        contexts.add("a", &text(&[9, 4, 3], 1), &of(&[0.0, 5.0, 0.0, 5.0]));
        contexts.add("a", &text(&[9, 2], 1), &of(&[0.0, 1.5]));
        let found = |at: usize| {
            let one = |f: &Found| (f.row, f.token, f.activation, f.ids.clone(), f.values.clone());
            contexts.found[at].iter().map(one).collect::<Vec<_>>()
        };
        // Of equal tokens the first; the last text is less active than two others.
        let (five, three) = ((3, 1, 5.0, vec![4, 3], vec![5.0, 5.0]), (7, 2, 3.0, vec![5, 6, 7], vec![1.0, 3.0, 2.0]));
        assert_eq!(found(0), [five, three]);
        assert_eq!(found(1), [(8, 1, 4.0, vec![8], vec![4.0])]);
    }

    #[test]
    fn a_page_shows_texts_as_they_are() {
        let context = |activation: f64, token: &str| Context {
            feature: 3,
            file: "a".into(),
            row: 1,
            token: 1,
            activation,
            tokens: vec![("a".into(), 0.0), (token.into(), activation)],
            at: 1,
        };
        let all = [context(2.0, "<script>"), context(1.0, "&\u{202e}")];
        let page = page("Contexts of \"x\"", &all);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
        assert!(page.contains("&amp;⟨U+202E⟩"), "{page}");
        assert_eq!(page.matches("<h2>").count(), 1);
        assert!(page.contains("rgba(230,140,0,0.70)") && page.contains("rgba(230,140,0,0.35)"), "{page}");
        assert_eq!(all[0].line(), "a[<script>]");
    }
}
