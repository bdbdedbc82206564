//! A comparison as tables: for a terminal, and as Markdown.

use super::compare::Comparison;
use crate::terminal::{self, between, figure, markdown_table, or_dash};

/// The unit of differences between shares: a hundredth of all.
const POINTS: &str = "points";

/// A table of a report.
pub struct Table {
    pub title: String,
    /// What its figures are, in a sentence.
    pub about: &'static str,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// The report for a terminal: what to know, then the tables.
pub fn text(comparison: &Comparison) -> String {
    let notes: Vec<String> = notes(comparison).iter().map(|note| format!("note: {note}")).collect();
    let tables = tables(comparison).into_iter().map(|t| format!("{}\n{}", t.title, terminal::table(&t.head, &t.rows)));
    let notes = (!notes.is_empty()).then(|| notes.join("\n"));
    notes.into_iter().chain(tables).collect::<Vec<_>>().join("\n\n")
}

/// The report as a Markdown file. `picture`: a path to show, relative to the file.
pub fn markdown(comparison: &Comparison, picture: Option<&str>) -> String {
    let mut page = format!("# {}\n", comparison.metric);
    if let Some(picture) = picture {
        page += &format!("\n![{}]({picture})\n", comparison.metric);
    }
    let notes = notes(comparison);
    for note in &notes {
        page += &format!("\n- {note}");
    }
    page += if notes.is_empty() { "" } else { "\n" };
    for table in tables(comparison) {
        page += &format!("\n## {}\n\n{}\n\n", table.title, table.about);
        page += &markdown_table(&table.head, table.rows);
    }
    page
}

/// What to know before the tables.
fn notes(comparison: &Comparison) -> Vec<String> {
    [comparison.warm_starts.sentences(), comparison.notes.clone()].concat()
}

/// All tables that have rows.
pub fn tables(comparison: &Comparison) -> Vec<Table> {
    let Comparison { metric, .. } = comparison;
    let unit = if comparison.shares { POINTS } else { "difference" };
    let table = |title: String, about, head: &[&'static str], rows| Table { title, about, head: head.to_vec(), rows };
    let all = [
        table(
            metric.clone(),
            "The first and the last value of each run.",
            &["arm", "run", "seed", "first", "at the end", if comparison.shares { POINTS } else { "change" }],
            runs(comparison),
        ),
        table(
            format!("{metric} at given steps"),
            "Means over an arm's runs, with 95 % bands by bootstrap over what the last column names.",
            &["step", "arm", "mean", "95 % band", "over"],
            means(comparison),
        ),
        table(
            "Differences between arms".into(),
            "The arm minus the one it is held against, on the same problems and for pairs of equal seeds where there \
             are such, with 95 % intervals by bootstrap; p is that of the exact sign-flip test over pairs of seeds.",
            &["step", "arm", "against", unit, "95 % interval", "seeds", "problems", "p"],
            differences(comparison),
        ),
        table(
            "The same problems, run against run".into(),
            "Problems that both runs, only one, or neither got; p is that of McNemar's exact test.",
            &["step", "first run", "second run", "both", "only first", "only second", "neither", "p"],
            exact(comparison),
        ),
        table(
            comparison
                .areas
                .first()
                .map_or(String::new(), |a| format!("Area under the curve, steps {} to {}", a.from, a.to)),
            "The mean height of the curve: trapezoids, divided by the range of steps.",
            &["arm", "area", "95 % band", "of each run"],
            areas(comparison),
        ),
        table(
            "Steps to a threshold".into(),
            "The first evaluation at or above the threshold; a later one may be below it again.",
            &["threshold", "arm", "arm's mean", "each run"],
            thresholds(comparison),
        ),
        table(
            "Accuracy at matched response length".into(),
            "Mean accuracy over bins of response length in which both arms have responses, all bins weighing the same. \
             Of two figures the first is the arm's.",
            &["step", "arm", "against", "tokens", "matched, %", POINTS, "95 % interval", "covered"],
            matched(comparison),
        ),
        table(
            "Format apart from accuracy".into(),
            "Shares of responses; the last four add up to all.",
            &["step", "arm", "accuracy", "format", "both", "only right", "only format", "neither"],
            layout(comparison),
        ),
    ];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// A value: shares in percent.
fn value(share: bool, value: f64) -> String {
    if share { percent(value) } else { figure(value) }
}

fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// A difference: of shares in points of a percent.
fn change(share: bool, value: f64) -> String {
    if share { format!("{:+.1}", 100.0 * value) } else { format!("{value:+.3}") }
}

fn band(share: bool, band: Option<[f64; 2]>) -> String {
    let number = |value: f64| if share { format!("{:.1}", 100.0 * value) } else { figure(value) };
    band.map_or("–".into(), |band| between(number, band))
}

fn interval(share: bool, interval: Option<[f64; 2]>) -> String {
    let number = |value: f64| if share { format!("{:+.1}", 100.0 * value) } else { format!("{value:+.3}") };
    interval.map_or("–".into(), |interval| between(number, interval))
}

fn runs(c: &Comparison) -> Vec<Vec<String>> {
    let row = |run: &super::compare::RunCurve| {
        let ((first, start), (last, end)) = (run.points.first()?, run.points.last()?);
        let at = |step: &u64, v: &f64| format!("{} (step {step})", value(c.shares, *v));
        let change = change(c.shares, end - start);
        Some(vec![run.arm.clone(), run.run.clone(), or_dash(run.seed), at(first, start), at(last, end), change])
    };
    c.runs.iter().filter_map(row).collect()
}

fn means(c: &Comparison) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for step in &c.steps {
        for arm in &c.arms {
            rows.extend(arm.points.iter().filter(|point| point.step == *step).map(|point| {
                let (mean, over) = (value(c.shares, point.mean), or_dash(point.over));
                vec![step.to_string(), arm.arm.clone(), mean, band(c.shares, point.band), over]
            }));
        }
        for (reference, curve) in c.reference.iter().flat_map(|r| r.curves.iter().map(move |curve| (r, curve))) {
            let share = reference.measures == Some("accuracy");
            rows.extend(curve.points.iter().filter(|(own, _)| own == step).map(|(_, mean)| {
                vec![step.to_string(), reference.label(curve), value(share, *mean), "–".into(), "–".into()]
            }));
        }
    }
    rows
}

fn differences(c: &Comparison) -> Vec<Vec<String>> {
    let row = |d: &super::pairs::Differing| {
        let seeds = match d.paired {
            true => format!("{} paired", d.seeds[0]),
            false => format!("{} and {}", d.seeds[0], d.seeds[1]),
        };
        vec![
            d.step.map_or("area".into(), |step| step.to_string()),
            d.second.clone(),
            d.first.clone(),
            change(c.shares, d.difference),
            interval(c.shares, d.interval),
            seeds,
            if d.problems > 1 { d.problems.to_string() } else { "–".into() },
            d.sign_flip.map_or("–".into(), figure),
        ]
    };
    c.differences.iter().map(row).collect()
}

fn exact(c: &Comparison) -> Vec<Vec<String>> {
    let row = |e: &super::pairs::Exact| {
        let counts = [e.both, e.only_first, e.only_second, e.neither].map(|count| count.to_string());
        let runs = [e.step.to_string(), e.first_run.clone(), e.second_run.clone()];
        runs.into_iter().chain(counts).chain([figure(e.p)]).collect()
    };
    c.exact.iter().map(row).collect()
}

fn areas(c: &Comparison) -> Vec<Vec<String>> {
    let row = |a: &super::compare::Area| {
        let runs: Vec<String> = a.runs.iter().map(|own| value(c.shares, *own)).collect();
        vec![a.arm.clone(), value(c.shares, a.area), band(c.shares, a.band), runs.join(", ")]
    };
    c.areas.iter().map(row).collect()
}

fn thresholds(c: &Comparison) -> Vec<Vec<String>> {
    let row = |mean: &super::compare::Reached| {
        let same = |own: &&super::compare::Reached| own.arm == mean.arm && own.threshold == mean.threshold;
        let runs = c.thresholds.iter().filter(same).filter(|own| own.run.is_some());
        let runs: Vec<String> = runs.map(|own| own.step.map_or("never".into(), |step| step.to_string())).collect();
        let step = mean.step.map_or("never".into(), |step| step.to_string());
        vec![value(c.shares, mean.threshold), mean.arm.clone(), step, runs.join(", ")]
    };
    c.thresholds.iter().filter(|reached| reached.run.is_none()).map(row).collect()
}

fn matched(c: &Comparison) -> Vec<Vec<String>> {
    let row = |m: &super::lengths::Matched| {
        let two = |values: [f64; 2]| format!("{:.1}, {:.1}", 100.0 * values[1], 100.0 * values[0]);
        vec![
            m.step.to_string(),
            m.second.clone(),
            m.first.clone(),
            format!("{}, {}", figure(m.lengths[1]), figure(m.lengths[0])),
            two(m.matched),
            change(true, m.difference),
            interval(true, m.interval),
            percent(m.covered),
        ]
    };
    c.matched.iter().map(row).collect()
}

fn layout(c: &Comparison) -> Vec<Vec<String>> {
    let row = |l: &super::lengths::Layout| {
        let cells = l.fourfold.map_or(["–"; 4].map(String::from), |shares| shares.map(percent));
        let known = [l.step.to_string(), l.arm.clone(), percent(l.accuracy), percent(l.format)];
        known.into_iter().chain(cells).collect()
    };
    c.layout.iter().map(row).collect()
}
