//! Training a sparse autoencoder on a model's residual stream.
//!
//! TopK as in arXiv:2406.04093 and JumpReLU as in arXiv:2407.14435, with what they share: rows of the decoder of norm
//! 1, the encoder begun as their transpose, inputs scaled to a mean norm of the root of H, and an auxiliary loss that
//! makes features that have died explain what the others do not. The residual stream is made as it is needed and
//! shuffled in a buffer of a few batches.

use super::autoencoder::Sae;
use super::buffer::Buffer;
use super::settings::Settings;
use super::stream::{Residuals, Text};
use super::student::Student;
use crate::rng::{self, Purpose};
use crate::torch::to_host;
use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use serde::Serialize;
use tch::{Kind, Tensor};

/// Batches that the buffer holds.
const BUFFER: i64 = 16;
/// Steps between figures, and between looks at which features have died.
const INTERVAL: i64 = 16;
/// A feature that was not active over this share of all tokens, and ten steps at least, is dead.
const DEAD_AFTER: f64 = 0.05;
/// Shares of all steps over which the learning rate rises and falls.
const RISE: f64 = 0.05;
const FALL: f64 = 0.2;
/// One text of so many is held out.
const HELD_OUT: usize = 20;

/// How good an autoencoder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Fit {
    /// Share of the residual stream's variance that it reproduces.
    pub explained_variance: f64,
    /// Mean number of features active at a token.
    pub l0: f64,
    /// Share of features that died: not active over the last twentieth of the training's tokens, or its last ten steps
    /// if these are more.
    pub dead: f64,
}

/// What training returns.
pub struct Trained {
    pub sae: Sae,
    /// On texts that were held out; which died is known from training.
    pub held_out: Fit,
    /// Tokens held out.
    pub held_tokens: i64,
    /// Tokens trained on.
    pub tokens: i64,
}

/// Trains an autoencoder on the residual stream of texts. `watch` gets the number of each step from 1 and the newest
/// figures of training.
///
/// # Errors
/// Too few texts; a loss that is not finite.
pub fn train(
    residuals: &Residuals,
    texts: &[Text],
    settings: &Settings,
    mut watch: impl FnMut(i64, Fit),
) -> Result<Trained> {
    ensure!(texts.len() >= 2, "one text cannot be trained on and held out");
    let mut rng = rng::stream(settings.seed, Purpose::Shuffle, 0, 0);
    let mut order: Vec<&Text> = texts.iter().collect();
    order.shuffle(&mut rng);
    let (held, own) = order.split_at(texts.len().div_ceil(HELD_OUT));
    let hidden = residuals.policy.config.hidden_size;
    let mut buffer = Buffer::new(residuals, own, settings.batch * BUFFER.min(settings.steps()), rng);
    let norm =
        tch::no_grad(|| buffer.left().norm_scalaropt_dim(2.0, [1i64], false).mean(Kind::Double).double_value(&[]));
    ensure!(norm.is_finite() && norm > 0.0, "the residual stream after layer {} is not finite, or 0", residuals.layer);
    let factor = (hidden as f64).sqrt() / norm;
    let mut student = Student::new(settings, &(buffer.left() * factor))?;
    let (steps, mut fit) = (settings.steps(), Fit::default());
    let dead_after = (DEAD_AFTER * (steps * settings.batch) as f64).max((10 * settings.batch) as f64);
    for step in 1..=steps {
        let x = buffer.take(settings.batch) * factor;
        let [loss, lost, l0] = student.pass(&x);
        loss.backward();
        student.step(settings.lr * schedule(step, steps))?;
        if step % INTERVAL == 0 || step == steps {
            let figures = to_host(&Tensor::stack(&[loss, lost, l0], 0));
            ensure!(figures.iter().all(|value| value.is_finite()), "the loss is not finite at step {step}: lower --lr");
            let dead = student.bury(dead_after);
            fit = Fit { explained_variance: 1.0 - f64::from(figures[1]), l0: f64::from(figures[2]), dead };
        }
        watch(step, fit);
    }
    let sae = student.sae(factor);
    let (held_out, held_tokens) = fit_of(&sae, residuals, held)?;
    let held_out = Fit { dead: fit.dead, ..held_out };
    Ok(Trained { sae, held_out, held_tokens, tokens: steps * settings.batch })
}

/// What the learning rate is multiplied by.
fn schedule(step: i64, steps: i64) -> f64 {
    let at = step as f64 / steps as f64;
    (at / RISE).min((1.0 - at) / FALL + 1.0 / steps as f64).min(1.0)
}

/// How well an autoencoder reproduces the residual stream of texts, and over how many tokens.
fn fit_of(sae: &Sae, residuals: &Residuals, texts: &[&Text]) -> Result<(Fit, i64)> {
    let device = residuals.policy.device();
    let scalar = || Tensor::zeros([0i64; 0], (Kind::Double, device));
    let (mut error, mut squares, mut active, mut tokens) = (scalar(), scalar(), scalar(), 0);
    let mut sums = Tensor::zeros([sae.hidden()], (Kind::Double, device));
    residuals.each(texts, |_, stream| {
        tch::no_grad(|| {
            let x = stream.to_kind(Kind::Float);
            let features = sae.encode(&x);
            error += (&x - sae.decode(&features, &x)).square().sum(Kind::Double);
            active += features.gt(0.0).sum(Kind::Double);
            squares += x.square().sum(Kind::Double);
            sums += x.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
            tokens += x.size()[0];
        });
        Ok(())
    })?;
    let n = tokens.max(1) as f64;
    let spread = squares - sums.square().sum(Kind::Double) / n;
    // Without variance there is none to explain.
    let spread = spread.double_value(&[]);
    let explained_variance = if spread > 0.0 { 1.0 - error.double_value(&[]) / spread } else { 0.0 };
    Ok((Fit { explained_variance, l0: active.double_value(&[]) / n, dead: 0.0 }, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Policy, Weights};
    use crate::sae::Shape;
    use crate::sae::student::unit;
    use crate::torch::{Generator, test_device};
    use tch::Device;

    /// A model without layers of effect whose embeddings are sparse sums of planted directions: the residual stream
    /// after its layer is the embedding itself.
    fn planted(directions: i64, hidden: i64, vocabulary: i64) -> (Policy, Tensor) {
        let config = ModelConfig::from_json(&format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": {vocabulary}, "hidden_size": {hidden},
                "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 256, "initializer_range": 1e-6,
                "tie_word_embeddings": true}}"#
        ))
        .unwrap();
        let weights = Weights::random(&config, Head::Language, Kind::Float, test_device(), 3).unwrap();
        let mut generator = Generator::seeded(11).unwrap();
        let mut planted = Tensor::zeros([directions, hidden], (Kind::Float, Device::Cpu));
        generator.normal(&mut planted, 1.0).unwrap();
        let planted = unit(&planted).to_device(test_device());
        // Each token has two of the directions, one stronger than the other.
        let sparse = Tensor::zeros([vocabulary, directions], (Kind::Float, Device::Cpu));
        for token in 0..vocabulary {
            let (first, second) = (token % directions, (token / directions + token * 7 + 1) % directions);
            let _ = sparse.get(token).get(first).fill_(1.0 + (token % 5) as f64 * 0.2);
            let _ = sparse.get(token).get(second).fill_(0.6 + (token % 3) as f64 * 0.2);
        }
        let embedding = weights.pp("model").pp("embed_tokens").get("weight");
        tch::no_grad(|| embedding.shallow_clone().copy_(&sparse.to_device(test_device()).matmul(&planted)));
        (Policy::new(&config, weights), planted)
    }

    fn texts(vocabulary: i64) -> Vec<Text> {
        (0..64)
            .map(|text| Text { ids: (0..33).map(|i| (text * 31 + i * 17) % vocabulary).collect(), first: 1, row: 0 })
            .collect()
    }

    fn settings(shape: Shape) -> Settings {
        Settings { shape, features: 32, k: 2, tokens: 128 * 600, batch: 128, lr: 3e-3, seed: 5 }
    }

    /// The cosine of each planted direction with the row that is nearest.
    fn found(sae: &Sae, planted: &Tensor) -> Vec<f32> {
        to_host(&planted.matmul(&unit(&sae.decoder).transpose(0, 1)).amax([1i64].as_slice(), false))
    }

    #[test]
    fn planted_directions_are_found_again() {
        let (policy, planted) = planted(16, 32, 240);
        let residuals = Residuals { policy: &policy, layer: 0 };
        for shape in [Shape::TopK, Shape::JumpRelu] {
            let trained = train(&residuals, &texts(240), &settings(shape), |_, _| ()).unwrap();
            let cosines = found(&trained.sae, &planted);
            let close = cosines.iter().filter(|cosine| **cosine > 0.9).count();
            let fit = trained.held_out;
            assert!(close >= 14, "{shape:?}: {cosines:?} {fit:?}");
            assert!(fit.explained_variance > 0.85, "{shape:?}: {fit:?}");
            assert!((1.0..3.0).contains(&fit.l0), "{shape:?}: {fit:?}");
            assert_eq!(trained.held_tokens, 4 * 32);
        }
    }

    #[test]
    fn equal_seeds_train_the_same_autoencoder() {
        let (policy, _) = planted(4, 8, 40);
        let residuals = Residuals { policy: &policy, layer: 0 };
        let encoder = |seed| {
            let settings = Settings { tokens: 1280, seed, ..settings(Shape::TopK) };
            to_host(&train(&residuals, &texts(40), &settings, |_, _| ()).unwrap().sae.encoder)
        };
        assert!(encoder(1) == encoder(1));
        assert!(encoder(1) != encoder(2));
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let at = |step| schedule(step, 100);
        assert!((at(1) - 0.2).abs() < 1e-12 && at(5) == 1.0 && at(80) == 1.0);
        assert!((at(90) - 0.51).abs() < 1e-12 && at(100) > 0.0 && at(100) < 0.02);
    }
}
