//! Persona profiles: how many perspectives traces have, who they are, and how their personalities spread (BFI-10), at
//! some judged steps. The template draws them; here are the places, in pixels.

use crate::hooks::persona::Judged;
use crate::judge::{Perspective, TRAITS, metrics::traits};
use crate::stats::mean;
use crate::terminal::{counted, figure};
use serde::Serialize;
use std::collections::BTreeMap;

/// The least score and the greatest, and where they are.
const SCORES: [f64; 2] = [1.0, 5.0];
pub const AXIS: [f64; 2] = [150.0, 320.0];
/// Scores are means of two items: halves.
const BINS: usize = 9;
/// Perspectives of a trace: 0, 1, ... and that many or more.
const MOST_VOICES: usize = 6;
const ROW: f64 = 42.0;
const BAR: f64 = 30.0;
/// Expertises that are named.
const NAMED: usize = 8;

/// The voices of the traces at a step.
#[derive(Serialize)]
pub struct Profile {
    pub title: String,
    pub about: String,
    pub rows: Vec<Row>,
    pub height: f64,
    /// The commonest expertises, with how many voices have them.
    pub expertise: Vec<(String, usize)>,
    /// The same in words.
    pub text: String,
}

/// A distribution as bars.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// Of the bars' feet.
    pub y: f64,
    pub bars: Vec<Bar>,
    pub mean: f64,
    pub mean_at: f64,
    /// Labels below the bars: place and text.
    pub ticks: Vec<(f64, String)>,
}

#[derive(Serialize)]
pub struct Bar {
    pub x: f64,
    pub width: f64,
    pub height: f64,
    pub about: String,
}

/// The profile of traces; `None` if no trace says how many perspectives it has.
pub fn profile(title: String, traces: &[&Judged]) -> Option<Profile> {
    let all = traces.iter().filter_map(|trace| trace.judgement.as_ref()?.perspectives.as_deref());
    let voices: Vec<&[Perspective]> = all.collect();
    if voices.is_empty() {
        return None;
    }
    let counts: Vec<f64> = voices.iter().map(|own| own.len() as f64).collect();
    let labels: Vec<String> = (0..MOST_VOICES).map(|n| n.to_string()).chain([format!("{MOST_VOICES}+")]).collect();
    let mut rows = vec![row("perspectives", &counts, [0.0, MOST_VOICES as f64], &labels, "trace")];
    let scores: Vec<[f64; 5]> = voices.iter().copied().flatten().filter_map(|v| v.bfi.as_ref().map(traits)).collect();
    let labels: Vec<String> = (0..BINS).map(|at| figure(SCORES[0] + at as f64 / 2.0)).collect();
    for (which, name) in TRAITS.iter().enumerate().filter(|_| !scores.is_empty()) {
        let own: Vec<f64> = scores.iter().map(|scores| scores[which]).collect();
        rows.push(row(name, &own, SCORES, &labels, "voice"));
    }
    for (at, row) in rows.iter_mut().enumerate() {
        // The first row has labels of its own.
        row.y = ROW * (at + 1) as f64 + if at > 0 { 22.0 } else { 0.0 };
    }
    let text = rows.iter().map(|row| format!("{}: {} on average", row.name, figure(row.mean))).collect::<Vec<_>>();
    let number: usize = voices.iter().map(|own| own.len()).sum();
    let silent = if scores.is_empty() { "; the judge says nothing of their personality" } else { "" };
    Some(Profile {
        title,
        about: format!("{}, {}{silent}", counted(voices.len(), "trace"), counted(number, "voice")),
        height: rows.last().map_or(0.0, |row| row.y) + 24.0,
        rows,
        expertise: commonest(voices.iter().copied().flatten()),
        text: text.join("; "),
    })
}

/// A row of bars, one for each label, from the first value of `ends` to the last.
fn row(name: &str, values: &[f64], ends: [f64; 2], labels: &[String], thing: &str) -> Row {
    let wide = (AXIS[1] - AXIS[0]) / labels.len() as f64;
    let last = labels.len() - 1;
    let place = |value: f64| ((value - ends[0]) / (ends[1] - ends[0])).clamp(0.0, 1.0) * last as f64;
    let mut counts = vec![0; labels.len()];
    values.iter().for_each(|value| counts[place(*value).round() as usize] += 1);
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let middle = |at: f64| AXIS[0] + wide * (at + 0.5);
    let bar = |(at, count): (usize, &usize)| Bar {
        x: middle(at as f64) - 0.4 * wide,
        width: 0.8 * wide,
        height: BAR * *count as f64 / most,
        about: format!("{name} {}: {}", labels[at], counted(*count, thing)),
    };
    let every = if labels.len() == BINS { 2 } else { 1 };
    Row {
        name: name.into(),
        y: 0.0,
        bars: counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bar).collect(),
        mean: mean(values),
        mean_at: middle(place(mean(values))),
        ticks: labels.iter().enumerate().step_by(every).map(|(at, label)| (middle(at as f64), label.clone())).collect(),
    }
}

fn commonest<'a>(voices: impl Iterator<Item = &'a Perspective>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for expertise in voices.filter_map(|voice| voice.expertise.as_deref()).filter(|text| !text.trim().is_empty()) {
        *counts.entry(expertise.trim().to_string()).or_default() += 1;
    }
    let mut all: Vec<_> = counts.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all.truncate(NAMED);
    all
}

/// One of the voices of a trace, for its key.
#[derive(Serialize)]
pub struct Voice {
    pub number: usize,
    pub expertise: String,
}

/// The scores of the voices of a trace in a trait.
#[derive(Serialize)]
pub struct Dots {
    pub name: String,
    pub y: f64,
    pub dots: Vec<Dot>,
}

/// A voice's score.
#[derive(Serialize)]
pub struct Dot {
    pub number: usize,
    pub x: f64,
    pub y: f64,
    pub score: f64,
}

/// The voices of a trace, their scores in each trait if any of them has some, and the height of the picture.
pub fn voices(perspectives: &[Perspective]) -> (Vec<Voice>, Vec<Dots>, f64) {
    let voice = |(voice, number): (&Perspective, usize)| Voice {
        number,
        expertise: voice.expertise.clone().unwrap_or_default(),
    };
    let all = perspectives.iter().zip(1..).map(voice).collect();
    let scores: Vec<(usize, [f64; 5])> = perspectives
        .iter()
        .zip(1..)
        .filter_map(|(voice, number)| Some((number, traits(voice.bfi.as_ref()?))))
        .collect();
    let mut rows: Vec<Dots> = vec![];
    let mut top = 14.0;
    for (which, name) in TRAITS.iter().enumerate().filter(|_| !scores.is_empty()) {
        let mut dots: Vec<Dot> = vec![];
        for (number, scores) in &scores {
            let score = scores[which];
            let share = (score - SCORES[0]) / (SCORES[1] - SCORES[0]);
            // Equal scores are one below the other.
            let equal = dots.iter().filter(|dot| dot.score == score).count();
            dots.push(Dot {
                number: *number,
                x: AXIS[0] + share * (AXIS[1] - AXIS[0]),
                y: top + 19.0 * equal as f64,
                score,
            });
        }
        let lowest = dots.iter().map(|dot| dot.y).fold(top, f64::max);
        rows.push(Dots { name: name.to_string(), y: top, dots });
        top = lowest + 25.0;
    }
    (all, rows, top + 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judgement;

    fn judged(voices: Vec<Perspective>) -> Judged {
        let judgement = Judgement { perspectives: Some(voices), ..Judgement::default() };
        serde_json::from_value(serde_json::json!({
            "index": 0, "problem": "", "text": "", "tokens": 1, "reward": 0.0, "accuracy": 0.0, "format": 0.0,
            "verdict": "", "judgement": judgement,
        }))
        .unwrap()
    }

    fn voice(bfi: Option<[u8; 10]>, expertise: &str) -> Perspective {
        Perspective { bfi, expertise: Some(expertise.into()) }
    }

    #[test]
    fn a_profile_counts_voices_and_their_scores() {
        let bold = voice(Some([1, 3, 3, 3, 3, 5, 3, 3, 3, 3]), "arithmetic");
        let shy = voice(Some([5, 3, 3, 3, 3, 1, 3, 3, 3, 3]), "doubt");
        let traces = [judged(vec![bold.clone(), shy.clone()]), judged(vec![bold.clone()])];
        let profile = profile("step 4".into(), &traces.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(profile.about, "2 traces, 3 voices");
        assert_eq!(profile.rows.len(), 1 + TRAITS.len());
        assert_eq!(profile.rows[0].mean, 1.5);
        let extraversion = &profile.rows[1];
        assert_eq!(extraversion.bars.iter().map(|bar| bar.height).collect::<Vec<_>>(), [BAR / 2.0, BAR]);
        assert!((extraversion.mean - 11.0 / 3.0).abs() < 1e-12);
        assert_eq!(profile.expertise, [("arithmetic".to_string(), 2), ("doubt".to_string(), 1)]);
        let (all, rows, height) = voices(&[bold.clone(), shy, bold]);
        assert_eq!(all.iter().map(|voice| voice.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((rows[0].dots[0].x, rows[0].dots[1].x), (AXIS[1], AXIS[0]));
        assert!(rows[0].dots[2].y > rows[0].dots[0].y && rows[1].y > rows[0].dots[2].y);
        assert!(height > rows[4].dots[2].y);
    }

    #[test]
    fn what_a_judge_does_not_say_is_not_drawn() {
        let silent = judged(vec![Perspective::default(); 9]);
        let profile = profile("step 4".into(), &[&silent]).unwrap();
        assert_eq!((profile.rows.len(), profile.expertise.len()), (1, 0));
        assert!(profile.about.contains("nothing of their personality"));
        assert!(voices(&[Perspective::default()]).1.is_empty());
        let refused = Judged { judgement: None, ..silent };
        assert!(super::profile("step 4".into(), &[&refused]).is_none());
    }
}
