//! A comparison as CSV: one figure per line, in full precision.

use super::compare::Comparison;

const HEAD: [&str; 10] = ["table", "step", "arm", "against", "run", "figure", "value", "low", "high", "p"];

/// A line of the file; what does not apply is empty.
#[derive(Default)]
struct Line<'a> {
    table: &'a str,
    step: Option<u64>,
    arm: &'a str,
    against: &'a str,
    run: &'a str,
    figure: &'a str,
    value: Option<f64>,
    interval: Option<[f64; 2]>,
    p: Option<f64>,
}

impl Line<'_> {
    fn text(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let cells = [
            quoted(self.table),
            self.step.map_or(String::new(), |step| step.to_string()),
            quoted(self.arm),
            quoted(self.against),
            quoted(self.run),
            quoted(self.figure),
            number(self.value),
            number(self.interval.map(|[low, _]| low)),
            number(self.interval.map(|[_, high]| high)),
            number(self.p),
        ];
        cells.join(",")
    }
}

/// A cell, quoted as RFC 4180 wants it where it holds a separator, a quote or a line feed.
fn quoted(cell: &str) -> String {
    let plain = !cell.contains([',', '"', '\n', '\r']);
    if plain { cell.into() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}

/// The whole file.
pub fn csv(comparison: &Comparison) -> String {
    let metric = comparison.metric.as_str();
    let mut lines = curves(comparison, metric);
    lines.extend(pairs(comparison, metric));
    for layout in &comparison.layout {
        let [both, right, format, neither] = layout.fourfold.map_or([None; 4], |shares| shares.map(Some));
        let figures = [
            ("accuracy", Some(layout.accuracy)),
            ("format", Some(layout.format)),
            ("both", both),
            ("only_right", right),
            ("only_format", format),
            ("neither", neither),
        ];
        let line = |(figure, value)| Line {
            table: "layout",
            step: Some(layout.step),
            arm: &layout.arm,
            figure,
            value,
            ..Line::default()
        };
        lines.extend(figures.into_iter().filter(|(_, value)| value.is_some()).map(line));
    }
    let lines: Vec<String> = lines.iter().map(Line::text).collect();
    format!("{}\n{}\n", HEAD.join(","), lines.join("\n"))
}

/// Runs, arms, areas, thresholds, references.
fn curves<'a>(c: &'a Comparison, figure: &'a str) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for run in &c.runs {
        lines.extend(run.points.iter().map(|(step, value)| Line {
            table: "run",
            step: Some(*step),
            arm: &run.arm,
            run: &run.run,
            figure,
            value: Some(*value),
            ..Line::default()
        }));
    }
    for arm in &c.arms {
        lines.extend(arm.points.iter().map(|point| Line {
            table: "mean",
            step: Some(point.step),
            arm: &arm.arm,
            figure,
            value: Some(point.mean),
            interval: point.band,
            ..Line::default()
        }));
    }
    for area in &c.areas {
        let (value, interval) = (Some(area.area), area.band);
        lines.push(Line { table: "area", arm: &area.arm, figure, value, interval, ..Line::default() });
        let runs = c.runs.iter().filter(|run| run.arm == area.arm).zip(&area.runs);
        lines.extend(runs.map(|(run, value)| Line {
            table: "area",
            arm: &area.arm,
            run: &run.run,
            figure,
            value: Some(*value),
            ..Line::default()
        }));
    }
    for reached in &c.thresholds {
        let run = reached.run.as_deref().unwrap_or("");
        let (step, value) = (reached.step, Some(reached.threshold));
        lines.push(Line { table: "threshold", step, arm: &reached.arm, run, figure, value, ..Line::default() });
    }
    for (reference, curve) in c.reference.iter().flat_map(|r| r.curves.iter().map(move |curve| (r, curve))) {
        lines.extend(curve.points.iter().map(|(step, value)| Line {
            table: "reference",
            step: Some(*step),
            arm: &curve.arm,
            figure: reference.measures.unwrap_or(""),
            value: Some(*value),
            ..Line::default()
        }));
    }
    lines
}

/// What compares two arms: `arm` against `against`.
fn pairs<'a>(c: &'a Comparison, figure: &'a str) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for d in &c.differences {
        let (table, value) = (if d.step.is_some() { "difference" } else { "area_difference" }, Some(d.difference));
        let (arm, against, interval, p) = (&*d.second, &*d.first, d.interval, d.sign_flip);
        lines.push(Line { table, step: d.step, arm, against, figure, value, interval, p, ..Line::default() });
    }
    for e in &c.exact {
        let counts = [
            ("both", e.both, None),
            ("only_against", e.only_first, None),
            ("only_arm", e.only_second, Some(e.p)),
            ("neither", e.neither, None),
        ];
        lines.extend(counts.into_iter().map(|(figure, count, p)| Line {
            table: "mcnemar",
            step: Some(e.step),
            arm: &e.second,
            against: &e.first,
            run: &e.second_run,
            figure,
            value: Some(count as f64),
            p,
            ..Line::default()
        }));
    }
    for m in &c.matched {
        let figures =
            [("against", m.matched[0], None), ("arm", m.matched[1], None), ("difference", m.difference, m.interval)];
        lines.extend(figures.into_iter().map(|(figure, value, interval)| Line {
            table: "matched_length",
            step: Some(m.step),
            arm: &m.second,
            against: &m.first,
            figure,
            value: Some(value),
            interval,
            ..Line::default()
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_separators_are_quoted() {
        let line = Line { table: "mean", step: Some(4), arm: "a, \"b\"", value: Some(0.1), ..Line::default() };
        assert_eq!(line.text(), "mean,4,\"a, \"\"b\"\"\",,,,0.1,,,");
        assert_eq!(line.interval, None);
        assert_eq!(HEAD.len(), 1 + line.text().replace("a, ", "").matches(',').count());
    }
}
