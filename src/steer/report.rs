//! What steering changed: the figures of every strength against strength 0, and those of random directions beside them.

use super::direction::Direction;
use super::measures::{Figure, LENGTH, Mean, Values, figures};
use super::scale::Scale;
use crate::stats::fit::holm;
use crate::stats::{Bootstrap, RESAMPLES, mean};
use crate::terminal::{between, counted, figure, markdown_table, or_dash, p_value};
use serde::Serialize;
use serde_json::Value;

/// A study of steering.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub direction: String,
    pub layer: usize,
    /// Which tokens were steered, in words.
    pub tokens: &'static str,
    pub scale: Scale,
    /// Of the held-out problems: task, split, decoding mode and number.
    pub task: String,
    pub split: &'static str,
    pub decoding: &'static str,
    pub problems: usize,
    /// Who judged the answers, in words, and what the judgements depend on besides the text.
    pub judged_by: String,
    pub judge: Value,
    pub conditions: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controls: Option<Controls>,
    pub notes: Vec<String>,
}

/// A strength, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// In the unit of the scale.
    pub strength: f64,
    /// What the direction was multiplied by.
    pub factor: f64,
    /// The length of what was added, and as a share of the residual stream's.
    pub added: f64,
    pub share: f64,
    pub figures: Vec<Figure>,
}

/// Other directions of the same length at the same strengths.
#[derive(Clone, Debug, Serialize)]
pub struct Controls {
    /// What they are, such as `random directions`.
    pub of: &'static str,
    pub count: usize,
    pub seed: u64,
    pub rows: Vec<Control>,
}

/// A figure at a strength, as its difference to strength 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    pub strength: f64,
    pub name: String,
    /// The direction's own, and how many problems it is over.
    pub own: f64,
    pub n: usize,
    /// The controls whose difference is known, and the fewest problems that one of them is over.
    pub known: usize,
    pub fewest: usize,
    /// Their differences: the mean, the smallest, the largest.
    pub mean: f64,
    pub least: f64,
    pub most: f64,
    /// Twice the share of these controls and the direction itself together whose difference is at least as large as its
    /// own, or at most as large, whichever is smaller: 2 / (known + 1) at least. Not corrected for several figures.
    pub p: f64,
}

impl Control {
    /// Whether something of it is not known, of so many problems and controls.
    fn is_partial(&self, problems: usize, controls: usize) -> bool {
        self.n.min(self.fewest) < problems || self.known < controls
    }
}

impl Report {
    /// Puts the figures in. `own`: the values of the direction at each strength, 0 among them; `controls`: those of
    /// each control at the same strengths but 0, in the same order, and what a control is.
    pub fn fill(&mut self, own: &[(f64, Values)], (of, controls): (&'static str, &[Vec<Values>]), seed: u64) {
        let Some((_, zero)) = own.iter().find(|(strength, _)| *strength == 0.0) else { return };
        let bootstrap = Bootstrap::new(RESAMPLES, self.problems);
        let row = |(strength, values): &(f64, Values)| Row {
            strength: *strength,
            factor: strength * self.scale.factor,
            added: self.scale.added(*strength),
            share: self.scale.share(*strength),
            figures: figures(values, (*strength != 0.0).then_some(zero), &bootstrap),
        };
        self.conditions = own.iter().map(row).collect();
        let tests = || self.conditions.iter().flat_map(|row| &row.figures).filter_map(|figure| figure.against.as_ref());
        let corrected = holm(&tests().map(|against| against.p).collect::<Vec<_>>());
        let against = self.conditions.iter_mut().flat_map(|row| &mut row.figures).filter_map(|f| f.against.as_mut());
        against.zip(corrected).for_each(|(against, p)| against.p_holm = p);
        let steered = own.iter().filter(|(strength, _)| *strength != 0.0).enumerate();
        let rows = steered.flat_map(|(at, (strength, values))| {
            let theirs: Vec<_> = controls.iter().map(|control| control[at].differences(zero)).collect();
            let names = values.names.iter().zip(values.differences(zero)).enumerate();
            names.filter_map(move |(which, (name, own))| {
                control(*strength, name, own?, &theirs.iter().filter_map(|all| all[which]).collect::<Vec<_>>())
            })
        });
        let count = controls.len();
        self.controls = (count > 0).then(|| Controls { of, count, seed, rows: rows.collect() });
    }
}

/// A figure's difference beside those of the controls of which it is known; nothing if there is none.
fn control(strength: f64, name: &str, (own, n): Mean, theirs: &[Mean]) -> Option<Control> {
    let fewest = theirs.iter().map(|(_, n)| *n).min()?;
    let theirs: Vec<f64> = theirs.iter().map(|(difference, _)| *difference).collect();
    // Differences that are equal on paper may differ in their last digits.
    let above = theirs.iter().filter(|other| **other >= own - 1e-12).count();
    let below = theirs.iter().filter(|other| **other <= own + 1e-12).count();
    Some(Control {
        strength,
        name: name.into(),
        own,
        n,
        known: theirs.len(),
        fewest,
        mean: mean(&theirs),
        least: theirs.iter().copied().fold(f64::INFINITY, f64::min),
        most: theirs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        p: (2.0 * (above.min(below) + 1) as f64 / (theirs.len() + 1) as f64).min(1.0),
    })
}

/// A direction as a report names it.
pub fn described(direction: &Direction) -> String {
    let most = direction.max_activation.map(|most| format!(", largest activation {}", figure(most)));
    format!("{} (norm {}{})", direction.name, figure(direction.norm()), most.unwrap_or_default())
}

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let Report { scale, .. } = report;
    let lines = [
        format!("direction: {}, added after layer {} at {}", report.direction, report.layer, report.tokens),
        format!(
            "a strength of 1 is {} (unit `{}`): it adds {} to a residual stream of mean norm {}",
            scale.unit.words(),
            scale.unit.name(),
            figure(scale.added(1.0)),
            figure(scale.residual_norm)
        ),
        format!(
            "{} of the {} split of {}, {} decoding; the same random numbers in all conditions",
            counted(report.problems, "problem"),
            report.split,
            report.task,
            report.decoding
        ),
        "differences are to strength 0 on the same problems, with 95 % intervals by bootstrap over problems; p is that \
         of McNemar's exact test (lengths: the exact sign test), and beside it Holm's over all tests of both tables"
            .into(),
    ];
    let is_partial = report.conditions.iter().flat_map(|row| &row.figures).any(|own| own.is_partial(report.problems));
    let partial: Option<String> = is_partial.then(|| {
        "what is missing is not 0: a figure is over the problems of which it is known, a difference over those of \
         which it is known at both strengths, and the tables say how many these are"
            .into()
    });
    let lines = lines.iter().chain(&partial).chain(&report.notes);
    let mut page: String = lines.map(|line| format!("- {line}\n")).collect();
    let is_behaviour = |name: &str| name.contains('/');
    page += &format!("\n## Answers\n\n{}", table(report, |name| !is_behaviour(name)));
    let behaviours = table(report, is_behaviour);
    let by = &report.judged_by;
    page += &format!("\n## Behaviours\n\nShares of answers with a behaviour, by {by}.\n\n{behaviours}");
    if let Some(controls) = &report.controls {
        page += &format!(
            "\n## Controls\n\nDifferences to strength 0; behaviours are judged by {by}. Controls: {}, {} of them, made \
             as long as the direction (seed {}). p is two-sided, from the direction's rank among them, and not \
             corrected for the number of figures.\n\n{}",
            controls.of,
            controls.count,
            controls.seed,
            beside(controls, report.problems)
        );
    }
    page
}

/// A table of figures; if some are not known of all problems, it says of how many.
fn table(report: &Report, shown: impl Fn(&str) -> bool) -> String {
    let all = report.conditions.iter().flat_map(|row| row.figures.iter().map(move |own| (row, own)));
    let all: Vec<(&Row, &Figure)> = all.filter(|(_, own)| shown(&own.name)).collect();
    let is_partial = all.iter().any(|(_, own)| own.is_partial(report.problems));
    let cells = |(row, own): (&Row, &Figure)| {
        let against = own.against.as_ref();
        let mut cells = vec![
            row.strength.to_string(),
            figure(row.share),
            spoken(&own.name),
            value(&own.name, own.value),
            band(&own.name, own.interval, false),
            or_dash(against.map(|against| change(&own.name, against.difference))),
            band(&own.name, against.and_then(|against| against.interval), true),
            or_dash(against.map(|against| p_value(against.p))),
            or_dash(against.map(|against| p_value(against.p_holm))),
        ];
        if is_partial {
            cells.extend([own.n.to_string(), or_dash(against.map(|against| against.n))]);
        }
        cells
    };
    let unit: &str = &format!("strength ({})", report.scale.unit.name());
    let band = "95 % interval";
    let mut head = vec![unit, "of the stream", "figure", "value", band, "difference", band, "p", "p (Holm)"];
    if is_partial {
        head.extend(["problems", "at both strengths"]);
    }
    markdown_table(&head, all.into_iter().map(cells))
}

/// The table of the controls; if something is not known, it says of how many problems and controls it is.
fn beside(controls: &Controls, problems: usize) -> String {
    let is_partial = controls.rows.iter().any(|own| own.is_partial(problems, controls.count));
    let cells = |own: &Control| {
        let change = |x: f64| change(&own.name, x);
        let range = between(change, [own.least, own.most]);
        let mut cells =
            vec![own.strength.to_string(), spoken(&own.name), change(own.own), change(own.mean), range, p_value(own.p)];
        if is_partial {
            cells.extend([own.n, own.known, own.fewest].map(|count| count.to_string()));
        }
        cells
    };
    let mut head = vec!["strength", "figure", "this one", "mean of controls", "range", "p"];
    if is_partial {
        head.extend(["problems", "controls", "fewest problems of one"]);
    }
    markdown_table(&head, controls.rows.iter().map(cells))
}

/// A figure's name in a table.
fn spoken(name: &str) -> String {
    let name = name.strip_suffix("/prevalence").map_or(name, |name| name.rsplit('/').next().unwrap_or(name));
    if name == LENGTH { "tokens".into() } else { name.replace('_', " ") }
}

/// A value: shares in percent, lengths in tokens.
fn value(name: &str, value: f64) -> String {
    if name == LENGTH { format!("{value:.1}") } else { format!("{:.1} %", 100.0 * value) }
}

/// A difference: of shares in points of a percent.
fn change(name: &str, value: f64) -> String {
    if name == LENGTH { format!("{value:+.1}") } else { format!("{:+.1}", 100.0 * value) }
}

fn band(name: &str, interval: Option<[f64; 2]>, signed: bool) -> String {
    let number = |x: f64| match (signed, name == LENGTH) {
        (true, _) => change(name, x),
        (false, true) => format!("{x:.1}"),
        (false, false) => format!("{:.1}", 100.0 * x),
    };
    or_dash(interval.map(|interval| between(number, interval)))
}

#[cfg(test)]
mod tests {
    use super::super::scale::Unit;
    use super::*;

    fn values(accuracy: &[f64]) -> Values {
        named("accuracy", accuracy.iter().copied().map(Some).collect())
    }

    fn named(name: &str, values: Vec<Option<f64>>) -> Values {
        Values { names: vec![name.into()], values: vec![values] }
    }

    fn empty() -> Report {
        let direction = Direction::from_vector("d|e", vec![3.0, 4.0], None).unwrap();
        let scale = Scale::new(Unit::Raw, &direction, 20.0).unwrap();
        Report {
            direction: described(&direction),
            layer: 3,
            tokens: "the tokens of responses",
            scale,
            task: "countdown".into(),
            split: "validation",
            decoding: "greedy",
            problems: 4,
            judged_by: "tiny behind an endpoint".into(),
            judge: Value::Null,
            conditions: vec![],
            controls: None,
            notes: vec![],
        }
    }

    fn report() -> Report {
        let mut report = empty();
        let own = [(-2.0, values(&[0.0; 4])), (0.0, values(&[0.0, 1.0, 0.0, 0.0])), (2.0, values(&[1.0; 4]))];
        let controls = [[[0.0; 4], [1.0, 1.0, 1.0, 1.0]], [[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]];
        let controls = controls.map(|control| control.map(|own| values(&own)).to_vec());
        report.fill(&own, ("random directions", &controls), 7);
        report
    }

    #[test]
    fn figures_are_held_against_strength_0_and_random_directions() {
        let report = report();
        let at = |row: usize| &report.conditions[row].figures[0];
        assert_eq!((at(0).value, at(1).value, at(2).value), (0.0, 0.25, 1.0));
        assert!(at(1).against.is_none());
        let against = at(2).against.as_ref().unwrap();
        // 2 / 2^3; of two tests the smaller counts twice.
        assert_eq!(against.difference, 0.75);
        assert!((against.p - 0.25).abs() < 1e-12 && (against.p_holm - 0.5).abs() < 1e-12, "{against:?}");
        assert_eq!((report.conditions[0].added, report.conditions[0].share), (10.0, 0.5));
        let controls = report.controls.as_ref().unwrap();
        let [down, up] = &controls.rows[..] else { panic!("a row for each strength but 0") };
        // One of the two random directions does as much, the other does less.
        assert_eq!((down.own, down.mean, down.least, down.most, down.p), (-0.25, -0.125, -0.25, 0.0, 1.0));
        assert_eq!((up.own, up.mean, up.least, up.most, up.p), (0.75, 0.5, 0.25, 0.75, 1.0));
        assert_eq!((up.n, up.known, up.fewest), (4, 2, 4));
    }

    /// Of four problems, and of two controls, not everything is known.
    #[test]
    fn tables_say_what_figures_are_over() {
        let of = |values: [Option<f64>; 4]| named("conversational/conflict/prevalence", values.to_vec());
        let (no, yes, none) = (Some(0.0), Some(1.0), None);
        let own = [(0.0, of([no, yes, no, none])), (2.0, of([yes, none, yes, yes]))];
        // The first control is known of two problems that strength 0 is known of, the second of none.
        let controls = [vec![of([yes, no, none, yes])], vec![of([none, none, none, yes])]];
        let mut report = empty();
        report.fill(&own, ("random directions", &controls), 7);
        let at = |row: usize| &report.conditions[row].figures[0];
        assert_eq!((at(0).value, at(0).n, at(1).value, at(1).n), (1.0 / 3.0, 3, 1.0, 3));
        let against = at(1).against.as_ref().unwrap();
        assert_eq!((against.difference, against.n, against.more, against.less), (1.0, 2, 2, 0));
        let [row] = &report.controls.as_ref().unwrap().rows[..] else { panic!("a row") };
        assert_eq!((row.own, row.n, row.mean, row.known, row.fewest, row.p), (1.0, 2, 0.0, 1, 2, 1.0));
        let page = markdown(&report);
        for part in [
            "- what is missing is not 0: ",
            "| p (Holm) | problems | at both strengths |\n",
            "| 0 | 0 | conflict | 33.3 % |",
            " | – | – | 3 | – |\n",
            " | 3 | 2 |\n",
            "| p | problems | controls | fewest problems of one |\n",
            "| 2 | conflict | +100.0 | +0.0 | +0.0 to +0.0 | 1.0000 | 2 | 1 | 2 |\n",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    /// Where all controls do harm, one that helps stands out.
    #[test]
    fn a_control_is_ranked_on_its_side() {
        let harm: Vec<Mean> = (1..=39).map(|i| (-0.01 * f64::from(i), 9)).collect();
        let p = |own: f64| control(1.0, "accuracy", (own, 9), &harm).unwrap().p;
        assert_eq!((p(0.05), p(-0.5)), (2.0 / 40.0, 2.0 / 40.0));
        assert!(p(-0.2) > 0.9);
        assert_eq!(control(1.0, "accuracy", (0.05, 9), &[]), None);
    }

    #[test]
    fn the_unit_is_named() {
        let page = markdown(&report());
        for part in [
            "- direction: d|e (norm 5), added after layer 3 at the tokens of responses\n",
            "- a strength of 1 is the direction as it is (unit `raw`): it adds 5 to a residual stream of mean norm 20",
            "| strength (raw) | of the stream | figure | value |",
            "| 2 | 0.500 | accuracy | 100.0 % | 100.0 to 100.0 | +75.0 |",
            "| 0 | 0 | accuracy | 25.0 % |",
            "| 2 | accuracy | +75.0 | +50.0 | +25.0 to +75.0 | 1.0000 |\n",
            "Shares of answers with a behaviour, by tiny behind an endpoint.\n",
            "| p | p (Holm) |\n",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("missing") && !page.contains("| problems"), "{page}");
    }
}
