//! An analysis: tables in, models and mediations out.

use super::design::{CONSTANT, Clustering};
use super::formula::{Cross, Formula, Path, Variable};
use super::model::{Family, Inference, Model};
use super::parse;
use super::paths::Mediation;
use super::table::{Filter, Named, Source, Table, Wanted};
use super::words::Fault;
use crate::bad;
use crate::recipe::spelling::nearest;
use crate::stats::fit::{Count, benjamini_hochberg, holm};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeSet;

/// What is asked for, as it is written on the command line.
#[derive(Clone, Debug)]
pub struct Request {
    pub sources: Vec<Source>,
    pub filters: Vec<Filter>,
    pub models: Vec<String>,
    /// One for all models, or one for each.
    pub families: Vec<Family>,
    pub mediations: Vec<String>,
    /// At most two.
    pub clusters: Vec<String>,
    pub robust: bool,
    pub count: Count,
    pub resamples: usize,
    pub correction: Option<Correction>,
    /// The terms whose p values are corrected; all but the constant if there are none.
    pub tests: Vec<String>,
}

/// A correction for several tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Correction {
    Holm,
    /// Benjamini and Hochberg.
    Bh,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    pub files: Vec<String>,
    /// Rows of the tables that the filters let through, and those that they did not.
    pub rows: usize,
    pub filtered: usize,
    pub models: Vec<Model>,
    pub mediations: Vec<Mediation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correction: Option<Corrected>,
}

/// The family of tests behind corrected p values.
#[derive(Clone, Debug, Serialize)]
pub struct Corrected {
    pub method: Correction,
    pub tests: usize,
}

/// What a request names, read.
struct Parsed {
    models: Vec<Formula>,
    mediations: Vec<Path>,
    clusters: Vec<Cross>,
}

impl Parsed {
    fn of(request: &Request) -> Result<Self> {
        let models = request.models.iter().map(|text| parse::model(text).map_err(|f| f.shown("--model", text)));
        let paths = request.mediations.iter().map(|text| parse::path(text).map_err(|f| f.shown("--mediate", text)));
        let clusters = request.clusters.iter().map(|text| parse::cross(text).map_err(|f| f.shown("--cluster", text)));
        Ok(Self {
            models: models.collect::<Result<_, _>>()?,
            mediations: paths.collect::<Result<_, _>>()?,
            clusters: clusters.collect::<Result<_, _>>()?,
        })
    }

    /// The columns that it takes.
    fn wanted(&self) -> BTreeSet<Wanted> {
        let mut wanted = BTreeSet::new();
        let mut add = |variable: &Variable| wanted.insert((variable.column.clone(), variable.reduce));
        for formula in &self.models {
            add(&formula.outcome);
            for offset in &formula.offsets {
                add(offset);
            }
        }
        for path in &self.mediations {
            add(&path.outcome);
        }
        let terms = self.models.iter().flat_map(|model| &model.terms);
        let factors = terms.chain(self.mediations.iter().flat_map(|path| &path.controls)).flat_map(|term| &term.0);
        let factors = factors.chain(self.mediations.iter().map(|path| &path.cause));
        for factor in factors.chain(self.mediations.iter().flat_map(|path| &path.mediators)) {
            match factor {
                super::formula::Factor::Variable(variable) => wanted.insert((variable.column.clone(), variable.reduce)),
                super::formula::Factor::Category(category) => wanted.insert((category.column.clone(), None)),
            };
        }
        let effects = self.models.iter().flat_map(|model| &model.effects);
        let effects = effects.chain(self.mediations.iter().flat_map(|path| &path.effects)).chain(&self.clusters);
        wanted.extend(effects.flat_map(|cross| &cross.columns).map(|column| (column.clone(), None)));
        wanted
    }
}

impl Study {
    /// Reads the tables and fits everything.
    ///
    /// # Errors
    /// Bad input: whatever of the request or of the tables cannot be used.
    pub fn of(request: &Request, named: &[Named]) -> Result<Self> {
        let parsed = Parsed::of(request)?;
        if parsed.clusters.len() > 2 {
            return Err(bad!("--cluster {}: errors are clustered in at most two ways", request.clusters.join(",")));
        }
        let families = match (request.families.as_slice(), parsed.models.len()) {
            ([], models) => vec![Family::Linear; models],
            ([one], models) => vec![*one; models],
            (each, models) if each.len() == models => each.to_vec(),
            (each, models) => {
                let what = "one for all, or one for each";
                return Err(bad!("{} times --family, but {models} models: {what}", each.len()));
            }
        };
        let table = Table::read(&request.sources, &parsed.wanted(), &request.filters, named)?;
        let mut clusterings = Vec::new();
        for (cross, text) in parsed.clusters.iter().zip(&request.clusters) {
            let clustering = Clustering::of(&table, cross.clone()).map_err(|fault| fault.shown("--cluster", text))?;
            clusterings.push(clustering);
        }
        let inference = Inference { clusterings, robust: request.robust, count: request.count };
        let mut models = Vec::new();
        for ((formula, text), family) in parsed.models.iter().zip(&request.models).zip(families) {
            let shown = |fault: Fault| fault.shown("--model", text);
            models.push(Model::of(&table, formula, family, &inference).map_err(shown)?);
        }
        let mut mediations = Vec::new();
        for (path, text) in parsed.mediations.iter().zip(&request.mediations) {
            let shown = |fault: Fault| fault.shown("--mediate", text);
            mediations.push(Mediation::of(&table, path, &inference, request.resamples).map_err(shown)?);
        }
        let correction = match request.correction {
            Some(method) => Some(corrected(&mut models, method, &request.tests)?),
            None => None,
        };
        let files = request.sources.iter().map(|source| source.path.display().to_string()).collect();
        Ok(Self { files, rows: table.rows(), filtered: table.filtered, models, mediations, correction })
    }
}

/// Corrects the p values of the models' terms, all in one family.
fn corrected(models: &mut [Model], method: Correction, tests: &[String]) -> Result<Corrected> {
    let all: Vec<&str> = models.iter().flat_map(|model| &model.terms).map(|line| line.term.as_str()).collect();
    // `kind` stands for all of its levels.
    let is = |test: &str, term: &str| test == term || term.split('[').next() == Some(test);
    if let Some(unknown) = tests.iter().find(|test| !all.iter().any(|term| is(test, term))) {
        let names = all.iter().flat_map(|term| [*term, term.split('[').next().unwrap_or_default()]);
        let hint = nearest(unknown, names).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        let known: BTreeSet<&str> = all.into_iter().collect();
        let known: Vec<&str> = known.into_iter().take(40).collect();
        return Err(bad!("--test {unknown}: no model has this term{hint}\nthe terms are: {}", known.join(", ")));
    }
    let chosen = |term: &str| match tests {
        [] => term != CONSTANT,
        tests => tests.iter().any(|test| is(test, term)),
    };
    let lines = models.iter_mut().flat_map(|model| &mut model.terms);
    let mut family: Vec<_> = lines.filter(|line| chosen(&line.term) && line.estimate.p.is_some()).collect();
    let p: Vec<f64> = family.iter().filter_map(|line| line.estimate.p).collect();
    let values = if method == Correction::Holm { holm(&p) } else { benjamini_hochberg(&p) };
    let tests = p.len();
    family.iter_mut().zip(values).for_each(|(line, value)| line.corrected = Some(value));
    Ok(Corrected { method, tests })
}
