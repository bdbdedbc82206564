//! Vectors for short texts, such as an expertise: those of an endpoint, or mean hidden states of a local model.

use super::interface::Judgement;
use crate::endpoint::{Refusal, Service, Settings};
use crate::rollout::Author;
use crate::{Stopped, bad};
use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use std::sync::Arc;

/// Texts per request.
const TOGETHER: usize = 64;

/// Where vectors come from.
pub struct Embedder(Source);

enum Source {
    Endpoint(Box<Service>),
    Local(Arc<Author>),
}

impl Embedder {
    /// An endpoint's embeddings; each text is kept by itself, and asked for once.
    pub fn endpoint(service: Service) -> Self {
        Self(Source::Endpoint(Box::new(service)))
    }

    /// A local model's hidden states after the last norm, the mean over a text's tokens.
    pub fn local(author: Arc<Author>) -> Self {
        Self(Source::Local(author))
    }

    /// What it has cost so far, for people.
    pub fn cost(&self) -> Option<String> {
        match &self.0 {
            Source::Endpoint(service) => Some(service.cost()),
            Source::Local(_) => None,
        }
    }

    /// What its vectors depend on besides the text. No secrets.
    pub fn identity(&self) -> Value {
        match &self.0 {
            Source::Endpoint(service) => Self::identity_of_endpoint(service.settings()),
            Source::Local(author) => Self::identity_of_local(author.identity()),
        }
    }

    /// What the vectors of an endpoint depend on.
    pub fn identity_of_endpoint(Settings { model, body, .. }: &Settings) -> Value {
        json!({ "kind": "endpoint", "model": model, "body": body })
    }

    /// What the vectors of a local model of this identity depend on.
    pub fn identity_of_local(model: &Value) -> Value {
        json!({ "kind": "local", "model": model })
    }

    /// For each judgement the vectors of what its perspectives know about; none where the judge does not say that.
    ///
    /// # Errors
    /// As `embed`.
    pub fn expertise(&self, judgements: &[Option<&Judgement>]) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let texts = |judgement: &Option<&Judgement>| -> Option<Vec<String>> {
            let perspectives = (*judgement)?.perspectives.as_ref()?;
            perspectives.iter().map(|one| one.expertise.clone().filter(|text| !text.trim().is_empty())).collect()
        };
        let texts: Vec<Option<Vec<String>>> = judgements.iter().map(texts).collect();
        let all: Vec<String> = texts.iter().flatten().flatten().cloned().collect();
        let mut vectors = self.embed(&all)?.into_iter();
        Ok(texts.into_iter().map(|texts| texts.map(|texts| vectors.by_ref().take(texts.len()).collect())).collect())
    }

    /// A vector for each text, in order, all of the same length; equal texts have equal vectors.
    ///
    /// # Errors
    /// Bad input: an empty text; a key or model that the server does not take; a budget that is spent. There are no
    /// vectors: the server is gone, or a signal came.
    pub fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(vec![]);
        }
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(bad!("an empty text has no embedding"));
        }
        let mut different: Vec<String> = texts.to_vec();
        different.sort();
        different.dedup();
        let vectors = match &self.0 {
            Source::Endpoint(service) => service.embed(&different, TOGETHER).map_err(|refusal| match refusal {
                Refusal::Stopped => Stopped("what was embedded is not asked for again").into(),
                Refusal::Unusable(why) | Refusal::Budget(why) => bad!("{why}"),
                other => anyhow!("{other}"),
            })?,
            Source::Local(author) => author.mean_states(&different)?,
        };
        let of = |text: &String| different.binary_search(text).ok().and_then(|at| vectors.get(at)).cloned();
        texts.iter().map(|text| of(text).ok_or_else(|| anyhow!("`{text}` has no embedding"))).collect()
    }
}
