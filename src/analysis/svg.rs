//! Pictures of lines as SVG, which browsers and GitHub show without any font of ours; `png` draws the same picture.
//!
//! The key is below the axes, where it covers nothing. Few intervals are bands; many would hide each other, and are
//! drawn as whiskers, as are those of a picture with a single step.

use super::curve::{Look, Series};
use super::marks::{Canvas, Drawn, INK, Key, Stroke, TEXT};
use crate::checkpoint::write_file;
use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Pixels of a picture without its key and its title.
const SIZE: (u32, u32) = (640, 380);
const TITLE: u32 = 34;
const MARGIN: i32 = 12;
/// Of labels left of the axes.
const LEFT: i32 = 68;
/// Most marks of a line.
const MARKED: usize = 12;
/// A line alone has marks if it has at most this many points.
const DOTTED: usize = 60;
/// Most bands of a picture.
const BANDS: usize = 4;
const UNDER_AXES: u32 = 46;
/// Least range of shares.
const SMALL: f64 = 0.05;

/// Draws `series` into an SVG file, which is replaced atomically; arguments as `svg`.
///
/// # Errors
/// No series has a point to draw, or the file cannot be written.
pub fn learning_curve(path: &Path, title: &str, series: &[Series], x: &str, y: &str) -> Result<()> {
    let picture = svg(title, series, x, y).with_context(|| format!("cannot draw {}", path.display()))?;
    write_file(path, picture)
}

/// The text of an SVG file with `series`; what comes later is drawn over what comes first. `title` may be empty.
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
        let greatest = all().map(|(_, y)| y).fold(0.0, f64::max);
        // The range of what is 0 throughout says nothing.
        ys = 0.0..if greatest > 0.0 { ys.end.clamp(SMALL, 1.0) } else { SMALL };
    }
    let first = all().next().map_or(0.0, |(x, _)| x);
    let only_step = all().all(|(x, _)| x == first).then_some(first);
    let named: Vec<&Series> = lines.iter().filter(|line| line.look != Look::Thin && !line.points.is_empty()).collect();
    let key = Key::of(if named.len() > 1 { named.clone() } else { vec![] }, SIZE.0 as i32 - LEFT - MARGIN);

    let plain = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let height = SIZE.1 + if title.is_empty() { 0 } else { TITLE };
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, (SIZE.0, height + key.height())).into_drawing_area();
    canvas.fill(&WHITE).map_err(plain)?;
    let (above, _) = canvas.split_vertically(height);
    let mut builder = ChartBuilder::on(&above);
    builder.margin(MARGIN).x_label_area_size(UNDER_AXES).y_label_area_size(LEFT);
    if !title.is_empty() {
        builder.caption(title, ("sans-serif", 21).into_font().color(&INK));
    }
    let [width, size] = [&xs, &ys].map(|range| range.end - range.start);
    let mut chart = builder.build_cartesian_2d(xs, ys).map_err(plain)?;
    let share = |value: &f64| format!("{:.0} %", exact(*value, size) * 100.0);
    let number = |value: &f64| short(exact(*value, size));
    // A tick between steps has no label, nor has one beside the only step; ticks are not exact.
    let whole = all().all(|(x, _)| x.fract() == 0.0);
    let step = |value: &f64| match only_step.or(whole.then(|| value.round())) {
        Some(known) if (value - known).abs() > 1e-9 * known.abs().max(1.0) => String::new(),
        Some(known) => short(known),
        None => short(exact(*value, width)),
    };
    let mut mesh = chart.configure_mesh();
    if only_step.is_some() {
        mesh.disable_x_mesh();
    }
    mesh.x_desc(x)
        .y_desc(y.trim_end_matches(['%', ' ', ',']))
        .x_labels(8)
        .y_labels(7)
        .x_label_formatter(&step)
        .y_label_formatter(if is_share { &share } else { &number })
        .axis_style(INK)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .bold_line_style(INK.mix(0.16))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(plain)?;
    let bands = named.iter().filter(|line| !line.band.is_empty()).count() <= BANDS && only_step.is_none();
    for line in &lines {
        let at = named.iter().position(|other| std::ptr::eq(*other, line)).unwrap_or(0);
        // Side by side, so that marks and whiskers do not cover each other.
        let apart = match (only_step, bands) {
            (Some(_), _) => 40.0f64.min(f64::from(SIZE.0 - 160) / named.len() as f64),
            (_, false) => 3.0,
            _ => 0.0,
        };
        let aside = (apart * (at as f64 - (named.len() as f64 - 1.0) / 2.0)).round() as i32;
        draw(&mut chart, line, bands).map_err(plain)?;
        // A line alone needs no marks to be told from others.
        if named.len() > 1 || line.points.len() <= DOTTED {
            marks(&canvas, &chart, line, (bands, at, aside)).map_err(plain)?;
        }
    }
    key.draw(&canvas, (LEFT + MARGIN, height as i32 - MARGIN / 2)).map_err(plain)?;
    canvas.present().map_err(plain)?;
    drop(chart);
    drop((above, canvas));
    Ok(svg)
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws a line, its band below it.
fn draw(chart: &mut Chart, line: &Series, bands: bool) -> Drawn {
    let stroke = Stroke::of(line);
    let points = || line.points.iter().copied();
    if bands && line.look == Look::Line {
        let edge = line.band.iter().map(|(x, low, _)| (*x, *low));
        let outline: Vec<_> = edge.chain(line.band.iter().rev().map(|(x, _, high)| (*x, *high))).collect();
        chart.draw_series((!outline.is_empty()).then(|| Polygon::new(outline, stroke.colour.mix(0.13).filled())))?;
    }
    match stroke.dash {
        Some((on, off)) => chart.draw_series(DashedLineSeries::new(points(), on, off, stroke.style))?,
        None => chart.draw_series(LineSeries::new(points(), stroke.style))?,
    };
    Ok(())
}

/// Draws some of the points of a line as marks, and its intervals as whiskers unless there are `bands`. `at`: the
/// line's number, so that marks of lines that run together are at different steps; `aside`: pixels to the right.
fn marks(canvas: &Canvas, chart: &Chart, line: &Series, (bands, at, aside): (bool, usize, i32)) -> Drawn {
    let stroke = Stroke::of(line);
    let pixel = |x: f64, y: f64| {
        let (x, y) = chart.backend_coord(&(x, y));
        (x + aside, y)
    };
    if line.look != Look::Line {
        return Ok(());
    }
    for (x, low, high) in line.band.iter().filter(|_| !bands) {
        let ends = [pixel(*x, *low), pixel(*x, *high)];
        stroke.whisker(canvas, ends[0].0, ends.map(|(_, y)| y))?;
    }
    let every = line.points.len().div_ceil(MARKED).max(1);
    let chosen = line.points.iter().enumerate().filter(|(i, _)| i % every == at % every);
    chosen.map(|(_, point)| point).try_for_each(|(x, y)| stroke.mark(canvas, pixel(*x, *y)))
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

/// A tick mark's value on an axis of this size: ticks are sums of steps, so that the one at 0 may be at -5.6e-17.
fn exact(value: f64, size: f64) -> f64 {
    if value.abs() <= 1e-9 * size { 0.0 } else { value }
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

    /// The labels left of the axes, from the top.
    fn labels(picture: &str) -> Vec<String> {
        let found = regex::Regex::new("\"end\"[^>]*>\n([^\n]+)\n").unwrap();
        found.captures_iter(picture).map(|label| label[1].to_string()).collect()
    }

    #[test]
    fn what_is_nothing_throughout_has_a_zero_on_its_axis() {
        let drawn = |values: &[f64], y| {
            let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
            labels(&svg("", &series(&points), "x", y).unwrap())
        };
        for values in [&[0.0][..], &[0.0, 0.0], &[-1.0, 1.0], &[-0.3, 0.0, 0.6], &[-3e-5, 7e-5], &[-2e7, 1e7]] {
            let all = drawn(values, "loss");
            assert_eq!(all.iter().filter(|label| *label == "0").count(), 1, "{values:?}: {all:?}");
            assert!(!all.iter().any(|label| label.contains("e-17") || label.contains("-0 ")), "{values:?}: {all:?}");
        }
        let percent = |label: Option<&String>| label.unwrap().trim_end_matches(" %").parse::<f64>().unwrap();
        for values in [&[0.0][..], &[0.0, 0.0]] {
            let all = drawn(values, "share, %");
            let (ends, most) = ([all.first(), all.last()].map(percent), all.len());
            assert!(ends.iter().all(|end| (0.0..=5.0).contains(end)) && most > 2, "{all:?}");
        }
        // A share that does not change is on the axis, as before.
        assert!(drawn(&[0.5, 0.5], "share, %").iter().any(|label| label == "50 %"));
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

    /// A mark and the dashes of each line in the key.
    #[test]
    fn twelve_lines_differ_without_colours() {
        let lines = (0..12).map(|at| (format!("line {at}"), vec![(0.0, at as f64), (9.0, at as f64)]));
        let lines: Vec<Series> = Series::lines(lines).into_iter().collect();
        let mut seen = std::collections::BTreeSet::new();
        let colour = regex::Regex::new("#[0-9A-F]{6}").unwrap();
        let text = regex::Regex::new("<text[^>]*>[^<]*</text>").unwrap();
        for line in &lines {
            let picture = svg("", std::slice::from_ref(line), "x", "y").unwrap();
            let grey = colour.replace_all(&picture, "grey").into_owned();
            // At the same height, for there is but one line.
            seen.insert(text.replace_all(&grey, "").into_owned());
        }
        assert_eq!(seen.len(), 12);
        let picture = svg("", &lines, "x", "y").unwrap();
        assert!((0..12).all(|at| picture.contains(&format!("line {at}\n"))));
        // The key is below the axes: four columns, three rows.
        assert!(picture.contains("height=\"452\""), "{}", &picture[..200]);
    }

    #[test]
    fn a_single_step_has_whiskers_and_many_bands_too() {
        let line = |at: usize, steps: &[f64]| Series {
            name: format!("line {at}"),
            points: steps.iter().map(|x| (*x, at as f64)).collect(),
            band: steps.iter().map(|x| (*x, at as f64 - 0.5, at as f64 + 0.5)).collect(),
            colour: at,
            ..Series::default()
        };
        let picture = |count: usize, steps: &[f64]| {
            svg("", &(0..count).map(|at| line(at, steps)).collect::<Vec<_>>(), "PPO step", "y").unwrap()
        };
        let bands = |picture: &str| picture.matches("opacity=\"0.13\"").count();
        assert_eq!(bands(&picture(4, &[0.0, 10.0])), 4);
        let ticks = |picture: &str| -> Vec<String> {
            let found = regex::Regex::new("middle[^>]*>\n([0-9e.-]+)\n").unwrap();
            found.captures_iter(picture).map(|tick| tick[1].to_string()).collect()
        };
        assert_eq!(ticks(&picture(1, &[0.0])), ["0"]);
        assert_eq!(ticks(&picture(1, &[0.0, 2.0])), ["0", "1", "2"]);
        assert_eq!((bands(&picture(5, &[0.0, 10.0])), bands(&picture(1, &[40.0]))), (0, 0));
    }
}
