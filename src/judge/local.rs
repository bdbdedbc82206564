//! A local model as the judge. Its replies are held to the schema while they are written, so that every one of them can
//! be read; whether it makes sense is up to the model.

use super::interface::{Judge, Judgement, Refusal, Trace};
use super::prompts::{Prompts, Question};
use super::reading::Reading;
use crate::checkpoint::ensure_whole;
use crate::grammar::{Grammar, Schema};
use crate::hash::number;
use crate::rng::{self, Purpose};
use crate::rollout::{Author, Manner, Response};
use crate::{Stopped, bad};
use anyhow::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model folder that judges traces.
pub struct Local {
    author: Arc<Author>,
    prompts: Prompts,
}

impl Local {
    /// Loads a model.
    ///
    /// # Errors
    /// Bad input: the folder is not that of a model that we read.
    pub fn open(dir: &Path, manner: Manner, prompts: Prompts, stop: Arc<AtomicBool>) -> Result<Self> {
        ensure_whole(dir, &[])?;
        Ok(Self { author: Arc::new(Author::open(dir, manner, stop)?), prompts })
    }

    /// What the judgements of such a judge depend on besides the trace; `model`: the identity of its author.
    pub fn identity_of(model: &Value, prompts: &Prompts) -> Value {
        json!({ "kind": "local", "model": model, "prompts": prompts.hash() })
    }

    /// The model, for what else it can be used for.
    pub fn author(&self) -> Arc<Author> {
        Arc::clone(&self.author)
    }

    /// Asks one question about all traces.
    fn ask(&self, question: Question, readings: &mut [Reading]) -> Result<()> {
        let mut grammars: HashMap<Schema, Arc<Grammar>> = HashMap::new();
        let mut asked: Vec<Asked> = vec![];
        for (at, reading) in readings.iter_mut().enumerate() {
            if !reading.asks(question) {
                continue;
            }
            let prompt = reading.prompt(&self.prompts, question)?;
            let grammar = grammars.entry(reading.schema(question));
            let grammar = Arc::clone(grammar.or_insert_with_key(|schema| Arc::new(Grammar::new(schema))));
            let (need, most) = (grammar.shortest_text(), self.author.manner().max_tokens);
            let ids = if need <= most {
                self.author.message(&prompt)
            } else {
                Err(bad!("a reply may take {need} tokens, but max_tokens is {most}"))
            };
            match ids {
                Ok(ids) => asked.push(Asked { at, address: number(prompt.as_bytes()), ids, grammar }),
                Err(error) => reading.miss(question, format!("{error:#}")),
            }
        }
        let ids: Vec<Vec<i64>> = asked.iter().map(|one| one.ids.clone()).collect();
        let grammars: Vec<Arc<Grammar>> = asked.iter().map(|one| Arc::clone(&one.grammar)).collect();
        // What a reply draws depends on its prompt, not on its batch.
        let stream = |at: usize| rng::stream(self.author.manner().seed, Purpose::Rollout, 0, asked[at].address);
        let responses = self.author.write(&ids, Some(&grammars), stream)?;
        if self.author.is_stopped() {
            return Err(Stopped("nothing of a local judge is kept").into());
        }
        for (one, response) in asked.iter().zip(&responses) {
            let reading = &mut readings[one.at];
            if let Err(error) = self.take(question, reading, response) {
                reading.miss(question, format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// Takes a reply.
    fn take(&self, question: Question, reading: &mut Reading, response: &Response) -> Result<()> {
        let reply = serde_json::from_str(&self.author.text(response)?)?;
        reading.accepts(question).check(&reply).map_err(Error::msg)?;
        reading.take(question, &reply)
    }
}

/// A question about a trace.
struct Asked {
    /// Of the trace.
    at: usize,
    /// Of the reply's random stream.
    address: u64,
    ids: Vec<i64>,
    grammar: Arc<Grammar>,
}

impl Judge for Local {
    fn identity(&self) -> Value {
        Self::identity_of(self.author.identity(), &self.prompts)
    }

    /// Of traces that are too long for the model nothing is known.
    fn judge(&self, traces: &[Trace]) -> Result<Vec<Result<Judgement, Refusal>>> {
        let mut readings: Vec<Reading> = traces.iter().map(Reading::new).collect();
        for question in Question::ALL {
            self.ask(question, &mut readings)?;
        }
        Ok(readings.into_iter().map(Reading::judgement).collect())
    }
}
