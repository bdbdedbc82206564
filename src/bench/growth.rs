//! How the time of a step grows: with the prompts of a step, with the length of responses, and with the model.
//!
//! Along each, the work is made smaller by steps, from the work itself down to a quarter; the exponent p of t ~ n^p is
//! the slope of a line through the logarithms, by least squares. An exponent below one says that something does not
//! grow (the optimizer's step, what is started once per step of decoding); above one, that something grows faster (the
//! pairs of tokens that attend to each other).

use super::{Bench, Measured, Tokens, Work};
use crate::analysis::{Series, svg};
use crate::model::ModelConfig;
use crate::plan::Plan;
use crate::terminal::{figure, table};
use anyhow::Result;
use serde_json::{Map, Value, json};

/// What is made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    Prompts,
    Responses,
    Parameters,
}

impl Along {
    const ALL: [Self; 3] = [Self::Prompts, Self::Responses, Self::Parameters];

    fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Responses => "tokens of a response",
            Self::Parameters => "parameters of the model",
        }
    }
}

/// Parts of the whole, in quarters or, of a model with as many groups of heads, in thirds.
const QUARTERS: i64 = 4;

/// A measurement of less work, or of the whole.
pub struct Point {
    along: Along,
    /// How many there are of what is made smaller.
    value: f64,
    /// Seconds of the stages and, last, of the step.
    seconds: Vec<(&'static str, f64)>,
}

/// Measures the work of a plan and smaller ones, `steps` steps each after one that is not counted; `watch` is told what
/// is measured.
///
/// # Errors
/// Those of `Bench`.
pub fn grow(plan: &Plan, work: Work, steps: usize, mut watch: impl FnMut(&str)) -> Result<Growth> {
    let mut points = Vec::new();
    watch(&work.to_string());
    let whole = Bench::new(plan, work)?.measure(steps, |_| ())?;
    for along in Along::ALL {
        for (value, plan, work) in smaller(plan, work, along) {
            watch(&format!("{} {}", figure(value), along.name()));
            points.push(Point::of(along, value, &Bench::new(&plan, work)?.measure(steps, |_| ())?));
        }
        points.push(Point::of(along, value(plan, work, along), &whole));
    }
    Ok(Growth(points))
}

fn value(plan: &Plan, work: Work, along: Along) -> f64 {
    match along {
        Along::Prompts => work.prompts as f64,
        Along::Responses => (work.response_tokens.least + work.response_tokens.most) as f64 / 2.0,
        Along::Parameters => plan.config.parameters() as f64,
    }
}

/// The work with less of something, the least first, without the whole.
fn smaller(plan: &Plan, work: Work, along: Along) -> Vec<(f64, Plan, Work)> {
    let part = |count: usize, quarters: i64| count * quarters as usize / QUARTERS as usize;
    let made = |(plan, work): (Plan, Work)| (value(&plan, work, along), plan, work);
    let all: Vec<(Plan, Work)> = match along {
        Along::Prompts => (1..QUARTERS)
            .map(|n| (plan.clone(), Work { prompts: part(work.prompts, n), ..work }))
            .filter(|(_, work)| work.prompts > 0)
            .collect(),
        Along::Responses => (1..QUARTERS)
            .map(|n| {
                let Tokens { least, most } = work.response_tokens;
                (plan.clone(), Work { response_tokens: Tokens { least: part(least, n), most: part(most, n) }, ..work })
            })
            .filter(|(_, work)| work.response_tokens.least > 0)
            .collect(),
        Along::Parameters => {
            narrower(&plan.config).into_iter().map(|config| (Plan { config, ..plan.clone() }, work)).collect()
        }
    };
    all.into_iter().map(made).collect()
}

/// The model with fewer groups of heads, and as much narrower; or, if its sizes cannot be divided like that, with fewer
/// layers.
fn narrower(config: &ModelConfig) -> Vec<ModelConfig> {
    let (groups, layers) = (config.num_key_value_heads, config.num_hidden_layers);
    let sizes = [config.hidden_size, config.intermediate_size, config.num_attention_heads];
    if groups > 1 && sizes.iter().all(|size| size % groups == 0) {
        let parts = (1..groups).filter(|n| groups <= QUARTERS || n % (groups / QUARTERS).max(1) == 0);
        let of = |n: i64| {
            let [hidden_size, intermediate_size, num_attention_heads] = sizes.map(|size| size / groups * n);
            let num_key_value_heads = n;
            ModelConfig { hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, ..config.clone() }
        };
        return parts.map(of).collect();
    }
    let fewer = (1..QUARTERS).map(|n| layers * n / QUARTERS).filter(|layers| *layers > 0);
    fewer.map(|num_hidden_layers| ModelConfig { num_hidden_layers, ..config.clone() }).collect()
}

impl Point {
    fn of(along: Along, value: f64, measured: &Measured) -> Self {
        let stages = measured.stages.iter().map(|stage| (stage.name, stage.seconds));
        Self { along, value, seconds: stages.chain([("step", measured.step)]).collect() }
    }
}

/// The measurements, along each of `Along` from the least to the whole.
pub struct Growth(Vec<Point>);

impl Growth {
    fn along(&self, along: Along) -> Vec<&Point> {
        self.0.iter().filter(|point| point.along == along).collect()
    }

    /// The exponent of each stage along something; none of a stage that was measured once, or took no time that could
    /// be measured: nothing has no logarithm.
    fn exponents(&self, along: Along) -> Vec<(&'static str, Option<f64>)> {
        let points = self.along(along);
        let names = points.last().map_or(vec![], |whole| whole.seconds.iter().map(|(name, _)| *name).collect());
        let of = |name: &str| {
            let both = points.iter().filter_map(|point| {
                let (_, seconds) = point.seconds.iter().find(|(known, _)| *known == name)?;
                (point.value > 0.0 && *seconds > 0.0).then(|| (point.value.ln(), seconds.ln()))
            });
            slope(&both.collect::<Vec<_>>())
        };
        names.into_iter().map(|name| (name, of(name))).collect()
    }

    /// A table for each of what was made smaller: a row for each measurement, then the exponents.
    pub fn table(&self) -> String {
        let each = Along::ALL.map(|along| {
            let exponents = self.exponents(along);
            let head: Vec<&str> = [along.name()].into_iter().chain(exponents.iter().map(|(name, _)| *name)).collect();
            let mut rows: Vec<Vec<String>> = self
                .along(along)
                .iter()
                .map(|point| {
                    let seconds = point.seconds.iter().map(|(_, seconds)| figure(*seconds));
                    [figure(point.value)].into_iter().chain(seconds).collect()
                })
                .collect();
            let exponent = |value: &Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
            rows.push(["exponent".into()].into_iter().chain(exponents.iter().map(|(_, p)| exponent(p))).collect());
            table(&head, &rows)
        });
        each.join("\n\n")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let seconds = |point: &&Point| {
            let all: Map<String, Value> = point.seconds.iter().map(|(n, s)| (n.to_string(), json!(s))).collect();
            json!({ "value": point.value, "seconds": all })
        };
        let each = Along::ALL.map(|along| {
            let exponents: Map<String, Value> =
                self.exponents(along).into_iter().map(|(name, p)| (name.to_string(), json!(p))).collect();
            let points = self.along(along);
            json!({ "along": along.name(), "points": points.iter().map(seconds).collect::<Vec<_>>(),
                "exponents": exponents })
        });
        json!(each)
    }

    /// A picture of the steps' times as shares of the whole, both axes in powers of two: an exponent is a slope.
    ///
    /// # Errors
    /// There is nothing to draw.
    pub fn svg(&self) -> Result<String> {
        let lines = Along::ALL.map(|along| {
            let points = self.along(along);
            let step = |point: &Point| point.seconds.last().map_or(f64::NAN, |(_, seconds)| *seconds);
            let whole = points.last().map_or([f64::NAN; 2], |whole| [whole.value, step(whole)]);
            let exponent = self.exponents(along).last().and_then(|(_, p)| *p);
            let name = exponent.map_or(along.name().into(), |p| format!("{}: exponent {p:.2}", along.name()));
            let share = |point: &&Point| ((point.value / whole[0]).log2(), (step(point) / whole[1]).log2());
            let drawn = points.iter().map(share).filter(|(x, y)| x.is_finite() && y.is_finite());
            (name, drawn.collect())
        });
        svg("", &Series::lines(lines), "log2 of the share of the whole", "log2 of the share of its step's time")
    }
}

/// The slope of a line through points, by least squares; none through fewer than two places.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let [x, y] = [points.iter().map(|(x, _)| x).sum::<f64>(), points.iter().map(|(_, y)| y).sum::<f64>()];
    let (x, y) = (x / count, y / count);
    let spread: f64 = points.iter().map(|(a, _)| (a - x).powi(2)).sum();
    let together: f64 = points.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    (spread > 1e-12).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(groups: i64) -> ModelConfig {
        let text = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 24, "intermediate_size": 36,
                "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": {groups}, "head_dim": 4,
                "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 32}}"#
        );
        ModelConfig::from_json(&text).unwrap()
    }

    #[test]
    fn a_narrower_model_is_one() {
        let all = narrower(&config(3));
        let sizes: Vec<_> = all.iter().map(|c| (c.hidden_size, c.num_attention_heads, c.num_key_value_heads)).collect();
        assert_eq!(sizes, [(8, 2, 1), (16, 4, 2)]);
        assert!(all.iter().all(|c| c.head_dim == 4 && c.num_hidden_layers == 8));
        // With a single group it has fewer layers.
        let layers: Vec<_> = narrower(&config(1)).iter().map(|c| c.num_hidden_layers).collect();
        assert_eq!(layers, [2, 4, 6]);
    }

    #[test]
    fn exponents_are_those_of_powers() {
        let point = |along, value: f64| Point {
            along,
            value,
            seconds: vec![("gen", 3.0 * value.powf(0.5)), ("step", 0.1 * value.powf(1.5))],
        };
        let growth = Growth(Along::ALL.into_iter().flat_map(|a| [2.0, 4.0, 8.0].map(|v| point(a, v))).collect());
        for along in Along::ALL {
            let found: Vec<f64> = growth.exponents(along).into_iter().map(|(_, p)| p.unwrap()).collect();
            assert!((found[0] - 0.5).abs() < 1e-9 && (found[1] - 1.5).abs() < 1e-9, "{found:?}");
        }
        assert!(growth.table().contains("exponent") && growth.table().contains("1.50"));
        assert_eq!(growth.json()[0]["points"][2]["value"], 8.0);
        let svg = growth.svg().unwrap();
        assert!(svg.contains("prompts: exponent 1.50") && !svg.contains("NaN"), "{svg}");
        assert_eq!(slope(&[(1.0, 2.0)]), None);
    }

    #[test]
    fn stages_without_time_have_no_exponent() {
        let point = |value: f64, written| Point {
            along: Along::Prompts,
            value,
            seconds: vec![("none", 0.0), ("gen", written), ("step", value)],
        };
        let growth = Growth(vec![point(1.0, 0.0), point(2.0, 2.0), point(4.0, 4.0)]);
        let found = growth.exponents(Along::Prompts);
        assert_eq!(found[0], ("none", None));
        assert!(found[1..].iter().all(|(_, p)| (p.unwrap() - 1.0).abs() < 1e-9), "{found:?}");
    }
}
