//! A study as Markdown.

use super::model::{Absorbed, Assumed, Family, Figures, Line, Model};
use super::paths::{Effect, Mediation};
use super::study::{Correction, Study};
use crate::stats::fit::Estimate;
use crate::terminal::{counted, figure, interval, markdown_table as table, or_dash, p_value};

/// The whole study.
pub fn markdown(study: &Study) -> String {
    let mut parts = vec![head(study)];
    let method = study.correction.as_ref().map(|corrected| corrected.method);
    parts.extend(study.models.iter().map(|own| model(own, method)));
    parts.extend(study.mediations.iter().map(mediation));
    parts.join("\n")
}

fn head(study: &Study) -> String {
    let filtered = match study.filtered {
        0 => String::new(),
        filtered => format!(", {filtered} more left out by --where"),
    };
    let mut head = format!("{}: {}{filtered}.\n", study.files.join(", "), counted(study.rows, "row"));
    if let Some(corrected) = &study.correction {
        let (method, holds) = match corrected.method {
            Correction::Holm => ("Holm's", "for all of them together"),
            Correction::Bh => ("Benjamini and Hochberg's", "as shares of false findings"),
        };
        head += &format!("The last column has {method} p values over {}, {holds}.\n", counted(corrected.tests, "test"));
    }
    head
}

/// A p value, or a dash.
fn p(value: Option<f64>) -> String {
    or_dash(value.map(p_value))
}

/// Estimate, error, statistic, p and interval.
fn cells(estimate: &Estimate) -> Vec<String> {
    vec![
        figure(estimate.estimate),
        or_dash(estimate.error.map(figure)),
        or_dash(estimate.statistic.map(|value| format!("{value:.2}"))),
        p(estimate.p),
        or_dash(estimate.interval.map(interval)),
    ]
}

fn model(model: &Model, method: Option<Correction>) -> String {
    let kind = match (model.family, model.binary) {
        (Family::Linear, true) => "linear probability model",
        (Family::Linear, false) => "least squares",
        (Family::Poisson, _) => "Poisson regression with the logarithm as its link",
    };
    let quality = match &model.quality {
        Figures::Linear { r2, within_r2: None } => format!("R² {}", or_dash(r2.map(figure))),
        Figures::Linear { r2, within_r2 } => {
            let within = or_dash(within_r2.map(figure));
            format!("R² {}, {within} within the fixed effects", or_dash(r2.map(figure)))
        }
        Figures::Poisson { pseudo_r2, log_likelihood, .. } => {
            format!("log-likelihood {log_likelihood:.2}, McFadden's pseudo-R² {}", or_dash(pseudo_r2.map(figure)))
        }
    };
    let rows = rows(model.rows, model.of, model.missing.iter().map(|m| (m.column.as_str(), m.rows)));
    let mut lines = vec![format!("{kind}, {rows}, {quality}"), errors(&model.errors)];
    lines.extend(model.effects.iter().map(effect));
    if !model.dropped.is_empty() {
        lines.push(format!("left out, as combinations of other columns: {}", model.dropped.join(", ")));
    }
    lines.extend(model.notes.iter().cloned());
    let statistic = if model.errors.degrees.is_some() { "t" } else { "z" };
    let mut head = vec!["term", "estimate", "error", statistic, "p", "95 % interval"];
    head.extend(method.map(|method| if method == Correction::Holm { "p (Holm)" } else { "p (BH)" }));
    let line = |line: &Line| {
        let corrected = method.map(|_| p(line.corrected));
        [vec![line.term.clone()], cells(&line.estimate), corrected.into_iter().collect()].concat()
    };
    let empty = if model.terms.is_empty() { "\nNo term is left.\n".into() } else { String::new() };
    let table = if empty.is_empty() { table(&head, model.terms.iter().map(line)) } else { empty };
    format!("## {}\n\n{}\n{table}", model.model, list(&lines))
}

fn mediation(mediation: &Mediation) -> String {
    let rows = rows(mediation.rows, mediation.of, mediation.missing.iter().map(|m| (m.column.as_str(), m.rows)));
    let mut lines = vec![format!("mediation by linear regressions, {rows}"), errors(&mediation.errors)];
    lines.extend(mediation.effects.iter().map(effect));
    let drawn = &mediation.bootstrap;
    let unsolved = match drawn.resamples - drawn.solved {
        0 => String::new(),
        unsolved => format!(", {unsolved} of which had no solution"),
    };
    let bootstrap = format!("bootstrap over {}: {} resamples{unsolved}", drawn.over, drawn.resamples);
    lines.push(format!("errors, p and their intervals by the delta method; {bootstrap}"));
    if !mediation.dropped.is_empty() {
        lines.push(format!("controls left out, as combinations of others: {}", mediation.dropped.join(", ")));
    }
    lines.extend(mediation.notes.iter().cloned());
    let mut page = format!("## {}\n\n{}", mediation.path, list(&lines));
    for ordered in &mediation.orders {
        let head = ["effect", "from", "through", "to", "estimate", "error", "z", "p", "95 % interval", "bootstrap"];
        let line = |effect: &Effect| {
            let through = match (&effect.through, effect.effect) {
                (Some(through), _) => through.clone(),
                (None, "indirect") => "all".into(),
                _ => String::new(),
            };
            let names = vec![effect.effect.into(), effect.from.clone(), through, effect.to.clone()];
            [names, cells(&effect.estimate), vec![or_dash(effect.bootstrap.map(interval))]].concat()
        };
        page += &format!("\n### {}\n\n{}", ordered.order, table(&head, ordered.effects.iter().map(line)));
    }
    page + &format!("\n{}\n", mediation.caution)
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("- {}\n", line.replace(['\n', '\r'], " "))).collect()
}

fn rows<'a>(rows: usize, of: usize, missing: impl Iterator<Item = (&'a str, usize)>) -> String {
    let lacking: Vec<String> = missing.map(|(column, rows)| format!("{rows} lack {column}")).collect();
    match (rows == of, lacking.is_empty()) {
        (true, _) => counted(rows, "row"),
        (false, true) => format!("{rows} of {of} rows"),
        (false, false) => format!("{rows} of {of} rows ({})", lacking.join(", ")),
    }
}

fn effect(effect: &Absorbed) -> String {
    let single = match effect.single {
        0 => String::new(),
        single => format!(", {single} of a single row, which says nothing about the coefficients"),
    };
    format!("fixed effect {}: {}{single}", effect.by, counted(effect.levels, "level"))
}

fn errors(errors: &Assumed) -> String {
    let distribution = match errors.degrees {
        Some(degrees) => format!("t with {degrees} degrees of freedom"),
        None => "normal".into(),
    };
    let ways: Vec<String> =
        errors.clusters.iter().map(|way| format!("{} ({} clusters)", way.by, way.clusters)).collect();
    let kind = match ways.len() {
        0 => errors.kind.to_string(),
        _ => format!("clustered by {}, {}", ways.join(" and "), errors.kind),
    };
    format!("errors {kind}; {distribution}; {} parameters count", errors.parameters)
}
