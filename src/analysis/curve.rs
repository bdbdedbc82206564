//! Learning curves as SVG, which browsers and GitHub show without any font of ours; `png` draws the same picture.
//!
//! Colours are Okabe and Ito's, which colour-blind readers can distinguish too.

use crate::checkpoint::write_file;
use crate::metrics::{Record, Stage};
use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const SIZE: (u32, u32) = (860, 480);
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];
const INK: RGBColor = RGBColor(60, 60, 60);
/// Beyond this a number counts as infinite in a picture.
const FARTHEST: f64 = 1e30;
/// Series of at most this many points show each of them as a dot.
const DOTTED: usize = 60;

/// One line of a picture.
#[derive(Default)]
pub struct Series {
    pub name: String,
    /// (x, y), in the order of x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// (x, low, high) of the band around the line.
    pub band: Vec<(f64, f64, f64)>,
    pub look: Look,
    /// Lines of one colour belong together.
    pub colour: usize,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Strong, and named in the legend.
    #[default]
    Line,
    /// Thin and pale, without a name.
    Thin,
    /// Dashed and grey, and named in the legend.
    Reference,
}

impl Series {
    /// Lines side by side, each of its own colour.
    pub fn lines(lines: impl IntoIterator<Item = (String, Vec<(f64, f64)>)>) -> Vec<Self> {
        let all = lines.into_iter().enumerate();
        all.map(|(colour, (name, points))| Self { name, points, colour, ..Self::default() }).collect()
    }

    fn colour(&self) -> RGBColor {
        COLOURS[self.colour % COLOURS.len()]
    }

    /// Without what cannot be drawn.
    fn drawable(&self) -> Self {
        let fits = |value: f64| value.abs() < FARTHEST;
        Self {
            points: self.points.iter().filter(|(x, y)| fits(*x) && fits(*y)).copied().collect(),
            band: self.band.iter().filter(|(x, low, high)| fits(*x) && fits(*low) && fits(*high)).copied().collect(),
            name: self.name.clone(),
            ..*self
        }
    }

    /// All places that the picture has to have room for.
    fn places(&self) -> impl Iterator<Item = (f64, f64)> {
        let band = self.band.iter().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        self.points.iter().copied().chain(band)
    }
}

/// The values of a metric over the steps of a stage. If a step was recorded twice, the later record wins.
pub fn points(records: &[Record], stage: Stage, name: &str) -> Vec<(f64, f64)> {
    let records = records.iter().filter(|record| record.stage == stage);
    let values: BTreeMap<u64, f64> = records.filter_map(|record| Some((record.step, record.get(name)?))).collect();
    values.into_iter().map(|(step, value)| (step as f64, value)).collect()
}

/// Draws `series` into an SVG file, which is replaced atomically; arguments as `svg`.
///
/// # Errors
/// No series has a point to draw, or the file cannot be written.
pub fn learning_curve(path: &Path, title: &str, series: &[Series], x: &str, y: &str) -> Result<()> {
    let picture = svg(title, series, x, y).with_context(|| format!("cannot draw {}", path.display()))?;
    write_file(path, picture)
}

/// The text of an SVG file with `series`; what comes later is drawn over what comes first.
///
/// `x` and `y` are the axes' labels. A `y` that ends in `%` says that the values are shares from 0 to 1
/// (if one is not, they are drawn as plain numbers).
///
/// # Errors
/// No series has a point to draw.
pub fn svg(title: &str, series: &[Series], x: &str, y: &str) -> Result<String> {
    let lines: Vec<Series> = series.iter().map(Series::drawable).collect();
    let all = || lines.iter().flat_map(Series::places);
    ensure!(lines.iter().any(|line| !line.points.is_empty()), "there are no points to draw");
    let is_share = y.ends_with('%') && all().all(|(_, y)| (0.0..=1.0).contains(&y));
    let xs = range(all().map(|(x, _)| x), 0.0);
    let mut ys = range(all().map(|(_, y)| y), 0.06);
    if is_share {
        ys = 0.0..ys.end.clamp(0.05, 1.0);
    }

    let plain = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(plain)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(xs, ys)
        .map_err(plain)?;
    let share = |value: &f64| format!("{:.0} %", value * 100.0);
    let number = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y.trim_end_matches(['%', ' ', ',']))
        .x_labels(9)
        .y_labels(8)
        .x_label_formatter(&number)
        .y_label_formatter(if is_share { &share } else { &number })
        .axis_style(INK)
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .bold_line_style(INK.mix(0.16))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(plain)?;
    for line in &lines {
        draw(&mut chart, line).map_err(plain)?;
    }
    let named: Vec<&Series> = lines.iter().filter(|line| line.look != Look::Thin).collect();
    if named.len() > 1 {
        // The corner that the curves do not end in is free.
        let ends = named.iter().filter_map(|line| Some(line.points.last()?.1 - line.points.first()?.1));
        let rises = ends.sum::<f64>() >= 0.0;
        chart
            .configure_series_labels()
            .position(if rises { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight })
            .label_font(("sans-serif", 14).into_font().color(&INK))
            .background_style(WHITE.mix(0.85))
            .border_style(INK.mix(0.3))
            .draw()
            .map_err(plain)?;
    }
    area.present().map_err(plain)?;
    drop(chart);
    drop(area);
    Ok(svg)
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

/// Draws a line, its band below it.
fn draw(chart: &mut Chart, line: &Series) -> Drawn {
    let colour = line.colour();
    let points = || line.points.iter().copied();
    let key = |style: ShapeStyle| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style);
    match line.look {
        Look::Thin => {
            chart.draw_series(LineSeries::new(points(), colour.mix(0.4).stroke_width(1)))?;
        }
        Look::Reference => {
            let style = INK.mix(0.7).stroke_width(1 + line.colour as u32 % 3);
            let dashes = DashedLineSeries::new(points(), 6 + 4 * (line.colour as u32 % 3), 4, style);
            chart.draw_series(dashes)?.label(&line.name).legend(key(style));
        }
        Look::Line => {
            let edge = line.band.iter().map(|(x, low, _)| (*x, *low));
            let outline: Vec<_> = edge.chain(line.band.iter().rev().map(|(x, _, high)| (*x, *high))).collect();
            chart.draw_series((!outline.is_empty()).then(|| Polygon::new(outline, colour.mix(0.15).filled())))?;
            let lines = chart.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
            lines.label(&line.name).legend(key(colour.stroke_width(3)));
            if line.points.len() <= DOTTED {
                chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
            }
        }
    }
    Ok(())
}

/// From the least to the greatest value, widened by a share of itself, and never empty.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let size = low.abs().max(high.abs());
    // A range that floating-point precision cannot divide would have no tick marks.
    if high - low <= 1e-9 * size || high == low {
        let half = if size > 0.0 { 0.1 * size } else { 0.5 };
        return low - half..high + half;
    }
    low - margin * (high - low)..high + margin * (high - low)
}

/// The label of a tick mark, with as few digits as distinguish it from its neighbours.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e-3..1e6 => {
            let digits = format!("{value:.3}");
            digits.trim_end_matches('0').trim_end_matches('.').into()
        }
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn series(points: &[(f64, f64)]) -> Vec<Series> {
        Series::lines(["a < b & c", "other"].map(|name| (name.into(), points.to_vec())))
    }

    #[test]
    fn a_curve_is_a_whole_svg_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.svg");
        let points = [(0.0, 0.2), (10.0, 0.35), (20.0, f64::NAN), (30.0, 0.5)];
        learning_curve(&path, "Countdown <quickstart> & co", &series(&points), "PPO step", "accuracy, %").unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        assert!(
            svg.contains("&lt;quickstart&gt; &amp; co") && svg.contains("a &lt; b &amp; c") && svg.contains("20 %")
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn odd_values_are_drawn_or_refused_and_never_hang() {
        let draw = |points: &[(f64, f64)], y| svg("t", &series(points), "x", y);
        for odd in [0.0, -3.0, 1e-300, 1e29, -1e29, 0.1 + 0.2] {
            draw(&[(0.0, odd)], "loss").unwrap();
            draw(&[(0.0, odd)], "share, %").unwrap();
            draw(&[(0.0, odd), (1.0, odd + 1.0)], "loss").unwrap();
            draw(&[(odd, 1.0), (odd + 1.0, 2.0), (1e29, f64::INFINITY)], "loss").unwrap();
        }
        assert!(draw(&[(0.0, f64::NAN)], "loss").is_err());
        assert!(draw(&[], "loss").is_err());
    }

    #[test]
    fn bands_thin_lines_and_references_are_told_apart() {
        let points = vec![(0.0, 0.2), (10.0, 0.4)];
        let band = vec![(0.0, 0.1, 0.3), (10.0, 0.35, 0.45), (20.0, f64::NAN, 1.0)];
        let line = |name: &str, look| Series { name: name.into(), points: points.clone(), look, ..Series::default() };
        let arm = Series { band, ..line("arm", Look::Line) };
        let all = [line("run", Look::Thin), arm, line("published", Look::Reference)];
        let picture = svg("t", &all, "x", "accuracy, %").unwrap();
        assert!(picture.contains("<polygon") && !picture.contains("NaN"), "{picture}");
        let named = |name: &str| picture.contains(&format!("{name}\n"));
        assert!(named("arm") && named("published") && !named("run"), "{picture}");
    }

    #[test]
    fn a_step_recorded_twice_counts_once() {
        let record = |step, value| {
            let mut record = Record::new(Stage::Ppo, step);
            record.set("x", value);
            record
        };
        let records = [record(1, 1.0), record(2, 2.0), Record::new(Stage::Ppo, 3), record(1, 3.0)];
        assert_eq!(points(&records, Stage::Ppo, "x"), [(1.0, 3.0), (2.0, 2.0)]);
    }
}
