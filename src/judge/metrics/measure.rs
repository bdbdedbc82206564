//! What is measured in a judged trace. Every figure over traces is a quotient of two sums: each trace adds a part to
//! the numerator and one to the denominator, or is missing. A mean has 1 below, a rate has words or tokens, a balance
//! has the traces with either side.

use super::super::collectivity::words;
use super::super::interface::{COGNITIVE, CONVERSATIONAL, Judgement, ROLES, TRAITS};
use super::personality::{expertise_diversity, trait_diversity, traits};
use crate::stats::Part;

/// A trace and what a judge said about it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// What the model wrote, tags included.
    pub text: &'a str,
    /// Its length in tokens; `None` if no model of ours wrote it.
    pub tokens: Option<usize>,
    /// `None` if the judge refused: the trace is missing.
    pub judgement: Option<&'a Judgement>,
    /// For each perspective of the judgement, the embedding of its expertise, if they were computed.
    pub embeddings: Option<&'a [Vec<f32>]>,
}

impl Judged<'_> {
    /// Its length in tokens, or if that is not known in words said. Traces of the two kinds have no common length.
    pub fn length(&self) -> f64 {
        self.tokens.map_or_else(|| f64::from(words(self.text).all), |tokens| tokens as f64)
    }
}

/// A figure's parts: of each trace, the numerator's and the denominator's, or `None` if the trace is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: String,
    pub parts: Vec<Part>,
}

impl Measure {
    /// The figure over traces that count `weights` times each. `None` if nothing is below the line.
    pub fn figure(&self, weights: &[f64]) -> Option<f64> {
        let (mut above, mut below) = (0.0, 0.0);
        for ((numerator, denominator), weight) in
            self.parts.iter().zip(weights).filter_map(|(p, w)| Some((p.as_ref()?, w)))
        {
            above += weight * numerator;
            below += weight * denominator;
        }
        (below > 0.0).then(|| above / below)
    }

    /// How many traces are in the denominator.
    pub fn traces(&self) -> usize {
        self.parts.iter().flatten().filter(|(_, denominator)| *denominator > 0.0).count()
    }
}

/// The categories of Bales in four groups, each with the indices of its roles in `ROLES`.
pub const ROLE_GROUPS: [(&str, std::ops::Range<usize>); 4] =
    [("positive", 0..3), ("give", 3..6), ("ask", 6..9), ("negative", 9..12)];

/// How often roles of a group occur, in the order of `ROLE_GROUPS`.
fn by_group(roles: &[u32; 12]) -> [u32; 4] {
    ROLE_GROUPS.map(|(_, own)| roles[own].iter().fold(0u32, |sum, count| sum.saturating_add(*count)))
}

/// Everything that can be measured in traces, in a fixed order, whether or not a judge could see it.
pub fn measures(traces: &[Judged]) -> Vec<Measure> {
    let mut all = Measures { traces, words: traces.iter().map(|trace| words(trace.text)).collect(), found: vec![] };
    all.counts("conversational", &CONVERSATIONAL, |judgement| judgement.conversational);
    all.counts("cognitive", &COGNITIVE, |judgement| judgement.cognitive);
    all.counts("roles", &ROLES, |judgement| judgement.roles);
    let groups = ROLE_GROUPS.map(|(name, _)| name);
    all.counts("role_groups", &groups, |judgement| judgement.roles.as_ref().map(by_group));
    for (name, [one, other]) in [("ask_give", [2, 1]), ("positive_negative", [0, 3])] {
        all.add(format!("balance/{name}"), |_, judgement| {
            let groups = by_group(&judgement.roles?);
            let has = [one, other].map(|group: usize| groups[group] > 0);
            Some((flag(has[0] && has[1]), flag(has[0] || has[1])))
        });
    }
    let voices = |judgement: &Judgement| judgement.perspectives.as_ref().map(Vec::len);
    all.add("perspectives/mean".into(), |_, judgement| Some((voices(judgement)? as f64, 1.0)));
    all.add("perspectives/two_or_more".into(), |_, judgement| Some((flag(voices(judgement)? >= 2), 1.0)));
    for (which, name) in TRAITS.iter().enumerate() {
        all.add(format!("personality/{name}/diversity"), |_, judgement| {
            Some((trait_diversity(judgement.perspectives.as_ref()?)?[which], 1.0))
        });
        all.add(format!("personality/{name}/mean"), |_, judgement| {
            let answers = judgement.perspectives.as_ref()?.iter().filter_map(|voice| voice.bfi.as_ref());
            let scores: Vec<f64> = answers.map(|bfi| traits(bfi)[which]).collect();
            (!scores.is_empty()).then(|| (scores.iter().sum(), scores.len() as f64))
        });
    }
    all.add("expertise/diversity".into(), |at, _| Some((expertise_diversity(traces[at].embeddings?)?, 1.0)));
    let said = all.words.clone();
    all.add("collectivity".into(), |at, _| Some((100.0 * f64::from(said[at].we), f64::from(said[at].all))));
    all.found
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

struct Measures<'a> {
    traces: &'a [Judged<'a>],
    words: Vec<super::super::collectivity::Words>,
    found: Vec<Measure>,
}

impl Measures<'_> {
    /// A measure from the parts of each trace (its index and judgement).
    fn add(&mut self, name: String, part: impl Fn(usize, &Judgement) -> Option<(f64, f64)>) {
        let parts = self.traces.iter().enumerate().map(|(at, trace)| part(at, trace.judgement?));
        self.found.push(Measure { name, parts: parts.collect() });
    }

    /// How often each of some categories occurs: in how many traces, and how often in a trace, in 1,000 tokens and in
    /// 1,000 words.
    fn counts<const N: usize>(&mut self, group: &str, names: &[&str; N], of: impl Fn(&Judgement) -> Option<[u32; N]>) {
        let (traces, words) = (self.traces, self.words.clone());
        for (which, name) in names.iter().enumerate() {
            let count = |judgement: &Judgement| Some(f64::from(of(judgement)?[which]));
            self.add(format!("{group}/{name}/prevalence"), |_, j| Some((flag(count(j)? > 0.0), 1.0)));
            self.add(format!("{group}/{name}/mean"), |_, j| Some((count(j)?, 1.0)));
            self.add(format!("{group}/{name}/per_1000_tokens"), |at, j| {
                Some((1000.0 * count(j)?, traces[at].tokens? as f64))
            });
            self.add(format!("{group}/{name}/per_1000_words"), |at, j| {
                Some((1000.0 * count(j)?, f64::from(words[at].all)))
            });
        }
    }
}
