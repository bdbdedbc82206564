//! The figures against plain loops over the traces.

use super::super::interface::{CONVERSATIONAL, Judgement, Perspective, ROLES, TRAITS};
use super::super::lexical;
use super::*;
use crate::rng::{Purpose, stream};
use crate::stats::quantile;
use rand::RngExt;

/// A trace with all that a judge may say about it.
struct Made {
    text: String,
    tokens: usize,
    judgement: Option<Judgement>,
    embeddings: Vec<Vec<f32>>,
}

impl Made {
    fn view(&self) -> Judged<'_> {
        let judgement = self.judgement.as_ref();
        Judged { text: &self.text, tokens: Some(self.tokens), judgement, embeddings: Some(&self.embeddings) }
    }
}

/// Random traces; every seventh is refused, every fifth has a voice without answers.
fn made(n: usize, seed: u64) -> Vec<Made> {
    let mut rng = stream(seed, Purpose::Problems, 0, 0);
    let trace = |at: usize| {
        let tokens = rng.random_range(20..200);
        let mut counts = || -> u32 { rng.random_range(0u32..4).saturating_sub(2) };
        let (conversational, cognitive) = (std::array::from_fn(|_| counts()), std::array::from_fn(|_| counts()));
        let roles = std::array::from_fn(|_| counts().saturating_sub(u32::from(at.is_multiple_of(3))));
        let voices = 1 + at % 3;
        let perspectives = (0..voices).map(|voice| {
            let bfi = std::array::from_fn(|_| rng.random_range(1..=5));
            Perspective { bfi: (!at.is_multiple_of(5) || voice > 0).then_some(bfi), expertise: None }
        });
        let perspectives = Some(perspectives.collect());
        let embeddings = (0..voices).map(|_| (0..3).map(|_| rng.random_range(0.1..1.0)).collect()).collect();
        let judgement = Judgement {
            conversational: Some(conversational),
            roles: Some(roles),
            cognitive: Some(cognitive),
            perspectives,
            ..Judgement::default()
        };
        let text = format!("<think>{}{}</think>", "we go ".repeat(at % 4), "a ".repeat(tokens / 2));
        Made { text, tokens, judgement: (at % 7 != 6).then_some(judgement), embeddings }
    };
    (0..n).map(trace).collect()
}

fn get<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
    figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn figures_are_those_of_a_plain_loop() {
    let made = made(60, 1);
    let traces: Vec<Judged> = made.iter().map(Made::view).collect();
    let figures = figures(&traces, 200);
    let judged: Vec<(&Made, &Judgement)> = made.iter().filter_map(|m| Some((m, m.judgement.as_ref()?))).collect();
    let n = judged.len() as f64;
    let assert_value = |name: &str, expected: f64, behind: usize| {
        let figure = get(&figures, name);
        assert!((figure.value - expected).abs() < 1e-9, "{name}: {} instead of {expected}", figure.value);
        assert_eq!(figure.n, Some(behind), "{name}");
        let [low, high] = figure.interval.unwrap();
        assert!(low <= figure.value && figure.value <= high, "{name}: {figure:?}");
    };

    for (which, name) in CONVERSATIONAL.iter().enumerate() {
        let (mut with, mut sum, mut tokens, mut words) = (0.0, 0.0, 0.0, 0.0);
        for (made, judgement) in &judged {
            let count = judgement.conversational.unwrap()[which];
            if count > 0 {
                with += 1.0;
            }
            sum += f64::from(count);
            tokens += made.tokens as f64;
            words += made.text.matches(char::is_whitespace).count() as f64;
        }
        assert_value(&format!("conversational/{name}/prevalence"), with / n, judged.len());
        assert_value(&format!("conversational/{name}/mean"), sum / n, judged.len());
        assert_value(&format!("conversational/{name}/per_1000_tokens"), 1000.0 * sum / tokens, judged.len());
        assert_value(&format!("conversational/{name}/per_1000_words"), 1000.0 * sum / words, judged.len());
    }
    for (which, name) in ROLES.iter().enumerate() {
        let sum: u32 = judged.iter().map(|(_, judgement)| judgement.roles.unwrap()[which]).sum();
        assert_value(&format!("roles/{name}/mean"), f64::from(sum) / n, judged.len());
    }

    let (mut both, mut either, mut asking) = (0.0, 0.0, 0.0);
    for (_, judgement) in &judged {
        let roles = judgement.roles.unwrap();
        let ask = roles[6] > 0 || roles[7] > 0 || roles[8] > 0;
        let give = roles[3] > 0 || roles[4] > 0 || roles[5] > 0;
        both += f64::from(u8::from(ask && give));
        either += f64::from(u8::from(ask || give));
        asking += f64::from(u8::from(ask));
    }
    assert_value("balance/ask_give", both / either, either as usize);
    assert_value("role_groups/ask/prevalence", asking / n, judged.len());

    let voices = |judgement: &Judgement| judgement.perspectives.as_ref().unwrap().len();
    let several = judged.iter().filter(|(_, judgement)| voices(judgement) > 1).count();
    assert_value("perspectives/two_or_more", several as f64 / n, judged.len());
    let all: usize = judged.iter().map(|(_, judgement)| voices(judgement)).sum();
    assert_value("perspectives/mean", all as f64 / n, judged.len());

    // Extraversion: items 1 (reversed) and 6.
    let (mut scores, mut deviations) = (vec![], vec![]);
    for (_, judgement) in &judged {
        let answers: Vec<_> = judgement.perspectives.as_ref().unwrap().iter().map(|voice| voice.bfi).collect();
        let own: Vec<f64> = answers.iter().flatten().map(|b| f64::from(6 - b[0] + b[5]) / 2.0).collect();
        scores.extend(own.clone());
        if answers.iter().all(Option::is_some) {
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let squares: f64 = own.iter().map(|x| (x - mean) * (x - mean)).sum();
            deviations.push((squares / own.len() as f64).sqrt());
        }
    }
    assert!(deviations.len() < judged.len());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert_value("personality/extraversion/diversity", mean(&deviations), deviations.len());
    let value = get(&figures, "personality/extraversion/mean").value;
    assert!((value - mean(&scores)).abs() < 1e-9);
    let distances: Vec<f64> = judged.iter().map(|(m, _)| expertise_diversity(&m.embeddings).unwrap()).collect();
    assert_value("expertise/diversity", mean(&distances), judged.len());

    let we: usize = judged.iter().map(|(made, _)| made.text.matches("we ").count()).sum();
    let words: usize = judged.iter().map(|(made, _)| made.text.matches(char::is_whitespace).count()).sum();
    assert_value("collectivity", 100.0 * we as f64 / words as f64, judged.len());
    let missing = get(&figures, "missing");
    assert_eq!((missing.value, missing.interval, missing.n), ((60 - judged.len()) as f64, None, Some(60)));
    assert_eq!(figures.len(), 4 * (4 + 4 + 12 + 4) + 2 + 2 + 2 * TRAITS.len() + 3);
}

#[test]
fn intervals_are_quantiles_over_resampled_traces() {
    let made = made(40, 2);
    let traces: Vec<Judged> = made.iter().map(Made::view).collect();
    let name = "conversational/conflict/per_1000_tokens";
    let figure = get(&figures(&traces, 300), name).clone();
    let judged: Vec<Judged> = traces.iter().filter(|trace| trace.judgement.is_some()).copied().collect();
    let mut values = vec![];
    for draw in Bootstrap::new(300, 1).draws([judged.len(), 0], 1) {
        let mut resample = vec![];
        for (trace, times) in judged.iter().zip(&draw.seeds[0]) {
            resample.extend(vec![*trace; *times as usize]);
        }
        assert_eq!(resample.len(), judged.len());
        values.push(get(&super::figures(&resample, 0), name).value);
    }
    values.sort_by(f64::total_cmp);
    assert!((figure.interval.unwrap()[0] - quantile(&values, 0.025)).abs() < 1e-9);
    assert!((figure.interval.unwrap()[1] - quantile(&values, 0.975)).abs() < 1e-9);
}

#[test]
fn what_nobody_saw_has_no_figure() {
    let judgement = lexical::judgement("<think1>Is it 4?</think1><think2>We disagree.</think2>");
    let text = "<think1>Is it 4?</think1><think2>We disagree.</think2>";
    let trace = Judged { text, tokens: Some(9), judgement: Some(&judgement), embeddings: None };
    let seen = figures(&[trace], 50);
    assert_eq!(seen.len(), 4 * 8 + 2 + 1 + 1);
    assert!(seen.iter().all(|figure| figure.interval.is_none() && figure.value.is_finite()));
    assert_eq!(get(&seen, "collectivity").value, 20.0);
    assert_eq!(get(&seen, "conversational/conflict/per_1000_words").value, 200.0);
    // Of a text whose tokens nobody knows there is no rate by them, and its length is in words.
    let other = Judged { tokens: None, ..trace };
    let by_tokens = |figure: &&Figure| figure.name.ends_with("/per_1000_tokens");
    let plain = figures(&[other], 50);
    assert_eq!((seen.iter().filter(by_tokens).count(), plain.iter().filter(by_tokens).count()), (8, 0));
    assert_eq!(plain.len(), seen.len() - 8);
    assert_eq!((trace.length(), other.length()), (9.0, 5.0));
    assert!(differences(&[other], &[other], true, 10).iter().all(|own| !own.name.ends_with("/per_1000_tokens")));
    let refused = Judged { judgement: None, ..trace };
    let none = figures(&[refused, refused], 50);
    assert_eq!((none.len(), none[0].value, none[0].n), (1, 2.0, Some(2)));
    assert_eq!(figures(&[], 50).len(), 1);
    // JSON there and back.
    let json = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Figure>>(&json).unwrap(), seen);
}

#[test]
fn figures_at_matched_length_are_compared_within_bins() {
    // The second set is the first, with each trace of the longer half twice: the same at any length.
    let first = made(80, 3);
    let longer = |m: &&Made| m.tokens > 110;
    let traces: Vec<Judged> = first.iter().map(Made::view).collect();
    let mut second = traces.clone();
    second.extend(first.iter().filter(longer).map(Made::view));
    second.extend(first.iter().filter(longer).map(Made::view));
    let found = differences(&traces, &second, false, 100);
    let own = found.iter().find(|own| own.name == "perspectives/mean").unwrap();
    let matched = own.matched.as_ref().unwrap();
    assert!(matched.difference.abs() < 0.05 && matched.covered > 0.9, "{own:?}");
    assert!(matched.low.unwrap() < 0.0 && matched.high.unwrap() > 0.0);
    assert_eq!(own.n, [69, 69 + 2 * first.iter().filter(longer).filter(|m| m.judgement.is_some()).count()]);
    // The same traces twice: no difference, and if they are paired, no doubt about it.
    let same = differences(&traces, &traces, true, 100);
    for own in &same {
        assert_eq!(own.first, own.second, "{own:?}");
        if let Some(matched) = &own.matched {
            assert_eq!((matched.difference, matched.low, matched.high), (0.0, Some(0.0), Some(0.0)), "{own:?}");
        }
    }
    let unpaired = differences(&traces, &traces, false, 100);
    assert!(unpaired[0].matched.as_ref().unwrap().high.unwrap() > 0.0);
    assert_eq!(serde_json::from_str::<Vec<Difference>>(&serde_json::to_string(&same).unwrap()).unwrap(), same);
    // No common length.
    let short: Vec<Judged> = traces.iter().map(|trace| Judged { tokens: Some(1), ..*trace }).collect();
    let long: Vec<Judged> = traces.iter().map(|trace| Judged { tokens: Some(900), ..*trace }).collect();
    assert!(differences(&short, &long, false, 10).iter().all(|own| own.matched.is_none()));
}
