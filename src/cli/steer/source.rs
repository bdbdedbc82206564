//! Where the direction of `ppo-train steer` comes from, and what it is held against.

use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::env::Environment;
use ppo_train::sae::{FeatureFigures, Hook, Residuals, Sae, Scaling, matched, read, read_figures};
use ppo_train::steer::{Direction, Unit, difference_of_means, passages};
use ppo_train::torch::to_host;
use std::path::PathBuf;
use tch::Device;

/// The direction.
#[derive(Args)]
pub struct Source {
    #[command(flatten)]
    origin: Origin,
    /// The feature of --sae whose decoder row is the direction.
    #[arg(long, value_name = "N")]
    feature: Option<i64>,
    /// What `sae features --figures` wrote about all features of --sae: it has the largest activations, and --controls
    /// are then features that are active as often and as strongly.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// The tensor of --file (default: direction).
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The largest activation of the direction's feature, for --unit activation.
    #[arg(long, value_name = "NUMBER")]
    max_activation: Option<f64>,
}

/// Where it comes from: one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Origin {
    /// The mean residual stream over the responses of a file A minus that of B: rows (.jsonl, .json, .parquet) with
    /// `response` or `text`, and the `prompt` before it if there is one.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    between: Option<Vec<PathBuf>>,
    /// A feature of a sparse autoencoder: its folder, in the layout of sae_lens or of Llama Scope (docs/sae.md).
    #[arg(long, value_name = "DIR", requires = "feature")]
    sae: Option<PathBuf>,
    /// A tensor of a safetensors file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A random direction of norm 1.
    #[arg(long)]
    random: bool,
}

/// A feature of an autoencoder.
pub struct Feature {
    name: String,
    number: i64,
    sae: Sae,
    pub hook: Hook,
    /// Of all features.
    figures: Option<Vec<FeatureFigures>>,
}

impl Source {
    /// # Errors
    /// Bad input: an option of another source than the one that is named.
    pub fn check(&self) -> Result<()> {
        // The parser cannot require one of several that exclude each other.
        let unused = [
            (self.tensor.is_some() && self.origin.file.is_none(), "--tensor", "--file FILE"),
            (self.figures.is_some() && self.origin.sae.is_none(), "--figures", "--sae DIR"),
            (self.feature.is_some() && self.origin.sae.is_none(), "--feature", "--sae DIR"),
        ];
        match unused.into_iter().find(|(is_unused, ..)| *is_unused) {
            Some((_, what, of)) => Err(bad!("{what} belongs to {of}, which is not given")),
            None => Ok(()),
        }
    }

    /// The feature that is steered along, if it is one, of an autoencoder over `hidden` numbers.
    ///
    /// # Errors
    /// Bad input: an autoencoder or figures that cannot be read, of another width, without this feature, or whose
    /// activations have no `unit`.
    pub fn feature(&self, hidden: i64, unit: Unit) -> Result<Option<Feature>> {
        let (Some(folder), Some(number)) = (&self.origin.sae, self.feature) else { return Ok(None) };
        let (sae, hook) = read(folder, Device::Cpu)?;
        let (shown, count) = (folder.display(), sae.features());
        if sae.hidden() != hidden {
            let own = sae.hidden();
            return Err(bad!("{shown} reads a residual stream of {own} numbers, but that of the model has {hidden}"));
        }
        if !(0..count).contains(&number) {
            return Err(bad!("--feature {number}: {shown} has {count} features, from 0 to {}", count - 1));
        }
        if !matches!(sae.scaling, Scaling::By(_)) && unit == Unit::Activation {
            return Err(bad!(
                "{shown} scales each token by itself, so that what an activation adds differs from token to token: use \
                 --unit raw or norm"
            ));
        }
        let figures = self.figures.as_ref().map(|file| read_figures(file, count)).transpose()?;
        Ok(Some(Feature { name: format!("feature {number} of {shown}"), number, sae, hook, figures }))
    }

    /// The direction; `seed`: that of a random one.
    ///
    /// # Errors
    /// Bad input: a file that cannot be read, or that holds no direction.
    pub fn direction(
        &self,
        residuals: &Residuals,
        env: &Environment,
        feature: Option<&Feature>,
        seed: u64,
    ) -> Result<Direction> {
        let Origin { between, file, .. } = &self.origin;
        let config = &residuals.policy.config;
        let found = match (between.as_deref(), file, feature) {
            (Some([first, second]), ..) => {
                let most = config.max_position_embeddings as usize;
                let read = |path: &PathBuf| passages(path, &env.tokenizer, most);
                let name = format!("difference of means, {} minus {}", first.display(), second.display());
                difference_of_means(residuals, &read(first)?, &read(second)?, name)?
            }
            (_, Some(file), _) => Direction::from_file(file, self.tensor.as_deref().unwrap_or("direction"))?,
            (.., Some(feature)) => feature.direction(feature.number)?,
            _ => Direction::random(config.hidden_size as usize, 1.0, seed, 0),
        };
        Direction::from_vector(found.name, found.vector, self.max_activation.or(found.max_activation))
    }

    /// What the direction is held against, `count` others as long as it is, and what they are called.
    ///
    /// # Errors
    /// Bad input: too few features can be matched with that of the direction.
    pub fn controls(
        &self,
        direction: &Direction,
        feature: Option<&Feature>,
        (count, seed): (usize, u64),
    ) -> Result<(&'static str, Vec<Direction>)> {
        let norm = direction.norm();
        if let Some((feature, figures)) = feature.and_then(|own| Some((own, own.figures.as_ref()?))) {
            let others = matched(figures, feature.number, count, seed);
            if count > 0 && figures[feature.number as usize].mean == 0.0 {
                return Err(bad!(
                    "{} is active nowhere, by --figures, so that none can be matched with it",
                    feature.name
                ));
            }
            if others.len() < count {
                let found = others.len();
                return Err(bad!("--controls {count}: only {found} other features can be matched with this one"));
            }
            let scaled = |other: i64| Ok(feature.direction(other)?.of_norm(norm));
            return Ok((
                "other features that are active about as often and as strongly",
                others.into_iter().map(scaled).collect::<Result<_>>()?,
            ));
        }
        // Of --random the direction itself is the first.
        let first = usize::from(self.origin.random);
        let random = |index: usize| Direction::random(direction.vector.len(), norm, seed, index as u64);
        Ok(("random directions", (first..first + count).map(random).collect()))
    }
}

impl Feature {
    /// The decoder's row of one of the features.
    fn direction(&self, number: i64) -> Result<Direction> {
        let own = self.figures.as_ref().map(|all| all[number as usize].max).filter(|most| *most > 0.0);
        let name = if number == self.number { self.name.clone() } else { format!("feature {number}") };
        Direction::from_vector(name, to_host(&self.sae.direction(number)), own)
    }
}
