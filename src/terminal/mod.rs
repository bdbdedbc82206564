//! What a run shows while it is running: a live bar on a terminal, plain lines elsewhere, and tables.
//!
//! Progress goes to stderr, tables to stdout: `ppo-train ... > results` keeps only the tables. Texts that a model wrote
//! are shown without control characters, which a terminal would obey.

mod columns;
mod markdown;

pub use columns::{table, table_within, width};
pub use markdown::{markdown_table, or_dash, p_value};

use crate::metrics::{Record, Stage};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// All bars on the screen, so that lines printed meanwhile appear above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether this process leaves all lines to another one.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Shortest time between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// The figures a step shows: a short name, and the metrics it is read from; the first one present is used.
const SFT: &[(&str, &[&str])] = &[
    ("loss", &["sft/loss"]),
    ("val", &["sft/val_loss"]),
    ("grad", &["sft/grad_norm"]),
    ("lr", &["sft/lr"]),
    ("tok/s", &["sft/tokens_per_s"]),
];
const PPO: &[(&str, &[&str])] = &[
    ("reward", &["critic/score/mean"]),
    ("acc", &["reward/accuracy"]),
    ("kl", &["actor/reward_kl_penalty", "actor/kl_loss"]),
    ("ent", &["actor/entropy"]),
    ("len", &["response_length/mean"]),
];

/// The progress of a long task. Dropping it removes its bar and leaves the last figures as a line.
pub struct Progress {
    label: String,
    done: u64,
    total: u64,
    /// Where this process began to count: the time left is estimated from its own pace.
    first: u64,
    begun: Instant,
    last_step: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
    /// The last line with figures, while only the bar shows it.
    unsaid: Option<String>,
}

impl Progress {
    /// Progress over `total` items, each called `label` ("step").
    pub fn new(total: u64, label: &str) -> Self {
        Self::resumed(0, total, label)
    }

    /// The same, with `done` of them already done.
    pub fn resumed(done: u64, total: u64, label: &str) -> Self {
        let bar = (std::io::stderr().is_terminal() && !is_silent()).then(|| {
            let bar = BARS.add(ProgressBar::new(total).with_position(done).with_prefix(label.to_string()));
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len}  {wide_msg} {elapsed}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        let now = Instant::now();
        Self {
            label: label.into(),
            done,
            total,
            first: done,
            begun: now,
            last_step: now,
            last_line: None,
            bar,
            unsaid: None,
        }
    }

    /// Counts one more item, with its figures.
    pub fn step(&mut self, record: &Record) {
        let took = record.get("timing_s/step").unwrap_or(self.last_step.elapsed().as_secs_f64());
        let mut message = figures(record);
        message.push(seconds(took));
        self.last_step = Instant::now();
        self.count(message);
    }

    /// Counts one more item, with what is to be said about it.
    pub fn count(&mut self, mut message: Vec<String>) {
        self.done += 1;
        if let Some(left) = self.left() {
            message.push(format!("left {}", seconds(left)));
        }
        let message = message.join("  ");
        let line = format!("{} {}/{}  {message}", self.label, self.done, self.total);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(message);
            self.unsaid = Some(line);
            return;
        }
        // Steps that take no time do not fill a log.
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES);
        if is_due || self.done >= self.total {
            warn(line.trim_end());
            self.last_line = Some(Instant::now());
        }
    }

    /// Seconds to the end at the mean pace so far.
    fn left(&self) -> Option<f64> {
        let (here, left) = (self.done.saturating_sub(self.first), self.total.saturating_sub(self.done));
        (here > 0 && left > 0).then(|| self.begun.elapsed().as_secs_f64() * left as f64 / here as f64)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
        if let Some(line) = &self.unsaid {
            warn(line);
        }
    }
}

/// Prints a line to stdout, above any bar. What cannot be written (a closed pipe, a full disk) is dropped: that is no
/// reason to end a run.
pub fn print(text: &str) {
    if is_silent() {
        return;
    }
    BARS.suspend(|| {
        let _ = writeln!(std::io::stdout(), "{}", harmless(text));
    });
}

/// Prints a message to stderr in the same way, if it is very long without its middle.
pub fn warn(text: &str) {
    if !is_silent() {
        say(text);
    }
}

/// `warn`, also in a process that is silent otherwise.
pub fn say(text: &str) {
    BARS.suspend(|| {
        let _ = writeln!(std::io::stderr(), "{}", harmless(&without_middle(text)));
    });
}

/// From here on this process leaves all lines to another one that does the same work.
pub fn be_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// The text with its control characters, but for line feeds and tabs, spelt out: a terminal would obey them, and they
/// may come from anybody's file.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return text.into();
    }
    text.chars().map(|c| if obeyed(c) { c.escape_unicode().to_string() } else { c.into() }).collect::<String>().into()
}

/// A message of a readable length, whatever it quotes.
fn without_middle(text: &str) -> Cow<'_, str> {
    const HALF: usize = 4096;
    if text.len() <= 2 * HALF {
        return text.into();
    }
    let (start, end) = (text.floor_char_boundary(HALF), text.ceil_char_boundary(text.len() - HALF));
    format!("{}\n[{} bytes are left out]\n{}", &text[..start], end - start, &text[end..]).into()
}

/// A text of somebody else's without the characters that a terminal obeys.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// A number of things: "1 row", "2 rows".
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The figures of a record that its stage shows, as "name value".
fn figures(record: &Record) -> Vec<String> {
    let chosen = match record.stage {
        Stage::Sft => SFT,
        Stage::Ppo => PPO,
        Stage::Evaluation | Stage::Hook => {
            let prefix = if record.stage == Stage::Hook { "hooks/" } else { "val/" };
            let scores = record.scalars().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
            return scores.map(|(name, value)| format!("{name} {}", figure(value))).collect();
        }
    };
    let found = chosen.iter().filter_map(|(short, names)| Some((short, names.iter().find_map(|n| record.get(n))?)));
    found.map(|(short, value)| format!("{short} {}", figure(value))).collect()
}

/// A number in about three digits; whole numbers without a decimal point.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".into(),
        _ if !value.is_finite() => format!("{value}"),
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.1e}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.*}", (2.0 - size.log10().floor()).clamp(0.0, 4.0) as usize),
    }
}

/// The ends of an interval, as numbers.
pub fn interval([low, high]: [f64; 2]) -> String {
    between(figure, [low, high])
}

/// The ends of an interval, in the words of `number`.
pub fn between(number: impl Fn(f64) -> String, [low, high]: [f64; 2]) -> String {
    format!("{} to {}", number(low), number(high))
}

/// A duration: "3.9 s", "2m 21s", "1h 04m", "2d 03h".
pub fn seconds(value: f64) -> String {
    let whole = value.round() as u64;
    match whole {
        _ if value < 9.95 => format!("{value:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// An amount of memory or disk: "0.5 MiB", "12.3 GiB".
pub fn size(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        gib if gib < 1.0 => format!("{:.1} MiB", gib * 1024.0),
        gib => format!("{gib:.1} GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let values = [0.412, 0.38, 0.0021, 58.1, 1024.0, 1e-6, -3.25, 9.9996, 0.0, f64::NAN, 2.5e7];
        let expected = ["0.412", "0.380", "0.0021", "58.1", "1024", "1.0e-6", "-3.25", "10.00", "0", "NaN", "2.5e7"];
        assert_eq!(values.map(figure), expected);
        let durations = [3.94, 9.97, 141.2, 59.7, 3840.0, 183_600.0].map(seconds);
        assert_eq!([1 << 19, 10 << 30].map(size), ["0.5 MiB", "10.0 GiB"]);
        assert_eq!(durations, ["3.9 s", "10 s", "2m 21s", "1m 00s", "1h 04m", "2d 03h"]);
    }

    #[test]
    fn a_step_shows_the_figures_of_its_stage() {
        let mut record = Record::new(Stage::Ppo, 12);
        record.set("actor/entropy", 0.61);
        record.set("critic/score/mean", 0.412);
        record.set("actor/kl_loss", 0.0021);
        assert_eq!(figures(&record), ["reward 0.412", "kl 0.0021", "ent 0.610"]);
        let mut record = Record::new(Stage::Evaluation, 12);
        record.set("val/countdown/accuracy", 0.38);
        assert_eq!(figures(&record), ["countdown/accuracy 0.380"]);
    }

    #[test]
    fn messages_are_harmless_and_readable() {
        assert_eq!(harmless("a\tb\n\u{1b}[2J\u{9b}c"), "a\tb\n\\u{1b}[2J\\u{9b}c");
        assert_eq!(without_middle("short"), "short");
        let long = without_middle(&"é".repeat(100_000)).into_owned();
        assert!(long.len() < 9000 && long.contains("\n[191808 bytes are left out]\n"), "{}", long.len());
    }
}
