//! Training a sparse autoencoder on a model's residual stream.
//!
//! TopK as in arXiv:2406.04093 and JumpReLU as in arXiv:2407.14435, with what they share: rows of the decoder of norm
//! 1, the encoder begun as their transpose, inputs scaled to a mean norm of the root of H, and an auxiliary loss that
//! makes features that have died explain what the others do not. The residual stream is made as it is needed and
//! shuffled in a buffer of a few batches.

use super::autoencoder::{Activation, Sae, Scaling, top};
use super::stream::{Residuals, Text};
use crate::rng::{self, ChaCha8Rng, Purpose};
use crate::torch::{AdamWStep, Generator, fused_adamw, on_device, set_grad, to_host};
use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

/// Batches that the buffer holds.
const BUFFER: i64 = 16;
/// Steps between figures, and between looks at which features have died.
const INTERVAL: i64 = 16;
/// Weight of the auxiliary loss (arXiv:2406.04093, appendix A.2).
const AUXILIARY: f64 = 1.0 / 32.0;
/// A feature that was not active over this share of all tokens, and ten steps at least, is dead.
const DEAD_AFTER: f64 = 0.05;
/// Width of the kernel that estimates the thresholds' gradient, where pre-activations are about 1 in size.
const BANDWIDTH: f64 = 0.1;
/// Shares of all steps over which the learning rate rises and falls.
const RISE: f64 = 0.05;
const FALL: f64 = 0.2;
/// One text of so many is held out.
const HELD_OUT: usize = 20;

/// Which activation is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    TopK,
    JumpRelu,
}

/// How an autoencoder is trained.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub shape: Shape,
    /// F.
    pub features: i64,
    /// Features active at a token: at most (`TopK`), or what their mean is drawn to (`JumpRelu`, by the loss of
    /// arXiv:2407.14435, appendix F).
    pub k: i64,
    /// Tokens to be trained on; texts are repeated until there are as many.
    pub tokens: i64,
    /// Tokens per step.
    pub batch: i64,
    pub lr: f64,
    pub seed: u64,
}

impl Settings {
    /// Steps of the training.
    pub fn steps(&self) -> i64 {
        (self.tokens / self.batch).max(1)
    }
}

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

/// A tensor that is trained, with its moments.
struct Parameter {
    value: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
}

impl Parameter {
    fn new(value: Tensor) -> Result<Self> {
        let mut value = value.contiguous().set_requires_grad(true);
        let mut grad = value.zeros_like();
        set_grad(&mut value, &mut grad)?;
        let (exp_avg, exp_avg_sq) = (grad.zeros_like(), grad.zeros_like());
        let step = Tensor::zeros([0i64; 0], (Kind::Float, value.device()));
        Ok(Self { value, grad, exp_avg, exp_avg_sq, step })
    }

    fn step(&mut self, hyper: AdamWStep, none: &mut Tensor) -> Result<()> {
        let flat = |tensor: &Tensor| tensor.detach().view(-1);
        self.step += 1;
        let (mut weights, mut grad) = (flat(&self.value), flat(&self.grad));
        let (mut exp_avg, mut exp_avg_sq) = (flat(&self.exp_avg), flat(&self.exp_avg_sq));
        fused_adamw(&mut weights, &mut grad, &mut exp_avg, &mut exp_avg_sq, &mut self.step, none, hyper)?;
        let _ = self.grad.zero_();
        Ok(())
    }
}

/// The shuffled residual stream of texts, without end.
struct Buffer<'a> {
    residuals: &'a Residuals<'a>,
    texts: Vec<&'a Text>,
    /// The next text.
    next: usize,
    rng: ChaCha8Rng,
    /// Tokens that are left, [n, H] float32.
    left: Tensor,
    /// How many it should hold.
    rows: i64,
}

impl Buffer<'_> {
    /// The next `batch` tokens, [batch, H].
    fn take(&mut self, batch: i64) -> Tensor {
        if self.left.size()[0] < batch {
            self.fill();
        }
        let left = self.left.size()[0];
        let taken = self.left.narrow(0, 0, batch).copy();
        self.left = self.left.narrow(0, batch, left - batch);
        taken
    }

    /// Reads texts until there are `rows` tokens, and shuffles what is there.
    fn fill(&mut self) {
        let mut parts = vec![self.left.copy()];
        let mut rows = self.left.size()[0];
        while rows < self.rows {
            let mut now = vec![];
            while now.len() < 16 {
                if self.next == 0 {
                    self.texts.shuffle(&mut self.rng);
                }
                now.push(self.texts[self.next]);
                self.next = (self.next + 1) % self.texts.len();
            }
            let read = self.residuals.each(&now, |_, stream| {
                rows += stream.size()[0];
                parts.push(stream.to_kind(Kind::Float));
                Ok(())
            });
            debug_assert!(read.is_ok());
        }
        let mut order: Vec<i64> = (0..rows).collect();
        order.shuffle(&mut self.rng);
        let all = Tensor::cat(&parts, 0);
        self.left = all.index_select(0, &on_device(&order, all.device()));
    }
}

/// The autoencoder while it is trained, over scaled inputs.
struct Student {
    shape: Shape,
    k: i64,
    encoder: Parameter,
    encoder_bias: Parameter,
    decoder: Parameter,
    decoder_bias: Parameter,
    /// [F], of JumpReLU.
    thresholds: Option<Parameter>,
    /// Tokens since each feature was active, [F] float32.
    idle: Tensor,
    /// The features that have died, [F] bool, and how many there are.
    dead: (Tensor, i64),
}

impl Student {
    /// Begun from `x`, scaled tokens [n, H].
    fn new(settings: &Settings, x: &Tensor) -> Result<Self> {
        let (hidden, device) = (x.size()[1], x.device());
        let mut rows = Tensor::zeros([settings.features, hidden], (Kind::Float, Device::Cpu));
        Generator::seeded(settings.seed)?.normal(&mut rows, 1.0)?;
        let rows = unit(&rows).to_device(device);
        let mean = x.mean_dim([0i64].as_slice(), false, Kind::Float);
        let zeros = |size: i64| Tensor::zeros([size], (Kind::Float, device));
        let thresholds = match settings.shape {
            Shape::TopK => None,
            Shape::JumpRelu => {
                // Where k features of a token are active from the start.
                let some = x.narrow(0, 0, x.size()[0].min(settings.batch)) - &mean;
                let (kept, _) = some.matmul(&rows.transpose(0, 1)).topk(settings.k, -1, true, true);
                let least = kept.select(1, -1).mean(Kind::Float).clamp_min(BANDWIDTH);
                Some(Parameter::new(zeros(settings.features) + least)?)
            }
        };
        Ok(Self {
            shape: settings.shape,
            k: settings.k,
            encoder: Parameter::new(rows.copy())?,
            encoder_bias: Parameter::new(zeros(settings.features))?,
            decoder: Parameter::new(rows)?,
            decoder_bias: Parameter::new(mean)?,
            thresholds,
            idle: zeros(settings.features),
            dead: (zeros(settings.features).to_kind(Kind::Bool), 0),
        })
    }

    /// One pass over scaled tokens `x` [N, H]: the loss, the share of variance that is not explained, and L0, scalars.
    fn pass(&mut self, x: &Tensor) -> [Tensor; 3] {
        let before = (x - &self.decoder_bias.value).linear(&self.encoder.value, Some(&self.encoder_bias.value));
        let (active, sparsity) = match &self.thresholds {
            None => (top(&before, self.k), None),
            Some(thresholds) => {
                let (active, l0) = jump(&before, &thresholds.value.relu());
                (active, Some((l0.mean(Kind::Float) / self.k as f64 - 1.0).square()))
            }
        };
        let is_active = active.detach().gt(0.0);
        let idle = tch::no_grad(|| (&self.idle + x.size()[0] as f64) * is_active.any_dim(0, false).logical_not());
        self.idle = idle;
        let l0 = is_active.sum(Kind::Float) / x.size()[0] as f64;
        let error = x - (active.matmul(&self.decoder.value) + &self.decoder_bias.value);
        let spread = (x - x.mean_dim([0i64].as_slice(), true, Kind::Float)).square().sum(Kind::Float);
        let lost = error.square().sum(Kind::Float) / spread.clamp_min(1e-12);
        let revival = (self.dead.1 > 0).then(|| self.revival(&before, &error.detach()) * AUXILIARY);
        let loss = [sparsity, revival].into_iter().flatten().fold(lost.shallow_clone(), |loss, more| loss + more);
        [loss, lost.detach(), l0]
    }

    /// How badly the dead features, the most nearly active of them, explain the `error` [N, H] of the others; 1 if not
    /// at all.
    fn revival(&self, before: &Tensor, error: &Tensor) -> Tensor {
        let most = (error.size()[1] / 2).max(1).min(self.dead.1);
        let dead = before.masked_fill(&self.dead.0.logical_not(), f64::NEG_INFINITY);
        let explained = top(&dead, most).matmul(&self.decoder.value);
        (error - explained).square().sum(Kind::Float) / error.square().sum(Kind::Float).clamp_min(1e-12)
    }

    /// Steps all parameters; the decoder's rows keep their norm.
    fn step(&mut self, lr: f64) -> Result<()> {
        let hyper = AdamWStep { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
        tch::no_grad(|| {
            let mut none = Tensor::zeros([0i64; 0], (Kind::Float, self.idle.device()));
            let rows = self.decoder.value.detach();
            let along = (&self.decoder.grad * &rows).sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
            self.decoder.grad -= along * &rows;
            let all = [&mut self.encoder, &mut self.encoder_bias, &mut self.decoder, &mut self.decoder_bias];
            for parameter in all.into_iter().chain(&mut self.thresholds) {
                parameter.step(hyper, &mut none)?;
            }
            let unit = unit(&self.decoder.value.detach());
            self.decoder.value.detach().copy_(&unit);
            Ok(())
        })
    }

    /// Looks at which features have died; returns their share.
    fn bury(&mut self, after: f64) -> f64 {
        let dead = self.idle.ge(after);
        let count = dead.sum(Kind::Int64).int64_value(&[]);
        self.dead = (dead, count);
        count as f64 / self.idle.size()[0] as f64
    }

    fn sae(&self, factor: f64) -> Sae {
        let of = |parameter: &Parameter| parameter.value.detach();
        Sae {
            encoder: of(&self.encoder),
            encoder_bias: of(&self.encoder_bias),
            decoder: of(&self.decoder),
            decoder_bias: of(&self.decoder_bias),
            activation: match (self.shape, &self.thresholds) {
                (Shape::JumpRelu, Some(thresholds)) => Activation::JumpRelu(of(thresholds).relu()),
                _ => Activation::TopK(self.k),
            },
            scaling: Scaling::By(factor),
            centred: true,
        }
    }
}

/// Rows of norm 1.
fn unit(rows: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12)
}

/// JumpReLU of pre-activations [N, F] and how many are active, [N], with the gradients that the thresholds [F] would
/// have over a rectangle of `BANDWIDTH` around them (arXiv:2407.14435, equations 11 and 12).
fn jump(before: &Tensor, thresholds: &Tensor) -> (Tensor, Tensor) {
    let known = thresholds.detach();
    let above = before.detach().gt_tensor(&known).to_kind(Kind::Float);
    let near = ((before.detach() - &known).abs().lt(BANDWIDTH / 2.0)).to_kind(Kind::Float) / BANDWIDTH;
    // Zero, with the gradient -1 with respect to the thresholds.
    let pull = &known - thresholds;
    let active = before * &above + &pull * (&known * &near);
    let l0 = (above + pull * near).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    (active, l0)
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
    let left = Tensor::zeros([0, hidden], (Kind::Float, residuals.policy.device()));
    let rows = settings.batch * BUFFER.min(settings.steps());
    let mut buffer = Buffer { residuals, texts: own.to_vec(), next: 0, rng, left, rows };
    buffer.fill();
    let norm = tch::no_grad(|| buffer.left.norm_scalaropt_dim(2.0, [1i64], false).mean(Kind::Double).double_value(&[]));
    ensure!(norm.is_finite() && norm > 0.0, "the residual stream after layer {} is not finite, or 0", residuals.layer);
    let factor = (hidden as f64).sqrt() / norm;
    let mut student = Student::new(settings, &(&buffer.left * factor))?;
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
    use crate::torch::test_device;

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

    /// Against the published formulas in plain loops: what thresholds get from a sum of activations and from L0.
    #[test]
    fn thresholds_have_the_gradients_of_the_rectangle() {
        let before = on_device(&[0.52f32, 0.46, 0.3, 1.0], test_device()).view([4, 1]);
        let thresholds = on_device(&[0.5f32], test_device()).set_requires_grad(true);
        let gradient = |of: fn((Tensor, Tensor)) -> Tensor| {
            let mut thresholds = thresholds.copy().detach().set_requires_grad(true);
            of(jump(&before, &thresholds)).sum(Kind::Float).backward();
            let gradient = to_host(&thresholds.grad())[0];
            thresholds.zero_grad();
            gradient
        };
        let (active, l0) = jump(&before, &thresholds);
        assert_eq!(to_host(&active), [0.52, 0.0, 0.0, 1.0]);
        assert_eq!(to_host(&l0), [1.0, 0.0, 0.0, 1.0]);
        // Two of the four are within half a bandwidth.
        assert!((gradient(|(active, _)| active) - -(2.0 * 0.5 / BANDWIDTH as f32)).abs() < 1e-4);
        assert!((gradient(|(_, l0)| l0) - -(2.0 / BANDWIDTH as f32)).abs() < 1e-4);
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let at = |step| schedule(step, 100);
        assert!((at(1) - 0.2).abs() < 1e-12 && at(5) == 1.0 && at(80) == 1.0);
        assert!((at(90) - 0.51).abs() < 1e-12 && at(100) > 0.0 && at(100) < 0.02);
    }
}
