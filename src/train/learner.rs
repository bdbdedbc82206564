//! A model that learns, with its optimizer; and the models of a run.

use crate::BadInput;
use crate::algo::kl::Controller;
use crate::checkpoint::{Checkpoint, load_tensors};
use crate::model::heads::critic_weights;
use crate::model::{Critic, Head, Policy, ValueHead, Weights};
use crate::optim::AdamW;
use crate::plan::Plan;
use crate::recipe::{CriticModel, Ppo, Precision};
use anyhow::Result;
use std::path::Path;
use tch::{Device, Kind};

/// A model and its optimizer.
pub struct Learner<M> {
    pub model: M,
    pub optimizer: AdamW,
}

impl Learner<Policy> {
    pub fn policy(plan: &Plan, weights: Weights) -> Self {
        let mut model = Policy::trainable(&plan.config, weights, longest(plan));
        model.decoder.gradient_checkpointing = plan.recipe.memory.gradient_checkpointing;
        Self { optimizer: optimizer(plan, &model.weights), model }
    }
}

/// What estimates the return from each token on.
pub enum Estimator {
    /// A model of its own.
    Critic(Box<Learner<Critic>>),
    /// A head on the actor's decoder, which then learns from both losses.
    Head(Learner<ValueHead>),
}

impl Estimator {
    fn new(plan: &Plan, sharing: CriticModel, start: &Policy) -> Self {
        if sharing == CriticModel::Shared {
            let flat = start.weights.flat();
            let weights = Weights::zeros(&plan.config, Head::ValueOnly, flat.kind(), flat.device());
            let model = ValueHead::trainable(weights);
            return Self::Head(Learner { optimizer: optimizer(plan, &model.weights), model });
        }
        let mut model = Critic::trainable(&plan.config, critic_weights(&plan.config, &start.weights), longest(plan));
        model.decoder.gradient_checkpointing = plan.recipe.memory.gradient_checkpointing;
        Self::Critic(Box::new(Learner { optimizer: optimizer(plan, &model.weights), model }))
    }

    pub fn weights(&self) -> &Weights {
        match self {
            Self::Critic(critic) => &critic.model.weights,
            Self::Head(head) => &head.model.weights,
        }
    }

    pub fn optimizer(&self) -> &AdamW {
        match self {
            Self::Critic(critic) => &critic.optimizer,
            Self::Head(head) => &head.optimizer,
        }
    }
}

fn optimizer(plan: &Plan, weights: &Weights) -> AdamW {
    if plan.recipe.memory.offload_optimizer { AdamW::offloaded(weights) } else { AdamW::new(weights) }
}

/// The frozen model that KL is measured to. It works where the actor is, and may rest on the host in between.
pub struct Reference {
    resting: Policy,
    device: Device,
    longest: i64,
}

impl Reference {
    fn new(plan: &Plan, start: &Policy) -> Self {
        let device = start.device();
        let home = if plan.recipe.memory.offload_reference { Device::Cpu } else { device };
        let weights = start.weights.duplicate(&plan.config, Head::Language, home);
        let longest = longest(plan);
        Self { resting: Policy::new(&plan.config, weights, longest), device, longest }
    }

    /// Brings it to its work: one copy of the weights where it rests elsewhere, gone when `work` is done.
    pub fn with<T>(&self, work: impl FnOnce(&Policy) -> T) -> T {
        if self.resting.device() == self.device {
            return work(&self.resting);
        }
        let config = &self.resting.config;
        let weights = self.resting.weights.duplicate(config, Head::Language, self.device);
        work(&Policy::new(config, weights, self.longest))
    }
}

/// The models of a PPO run: an actor, a critic where advantages need one, a frozen reference where KL is paid.
pub struct Models {
    pub actor: Learner<Policy>,
    pub critic: Option<Estimator>,
    pub reference: Option<Reference>,
    pub kl: Controller,
}

impl Models {
    /// The models at the first step: actor and critic start from `start`, and the reference stays there.
    pub fn new(plan: &Plan, ppo: &Ppo, start: Policy) -> Self {
        let reference = ppo.needs_reference().then(|| Reference::new(plan, &start));
        let critic = ppo.needs_critic().then(|| Estimator::new(plan, ppo.critic, &start));
        // Through a copy: the weights of the warm start hang on its optimizer's buffers.
        let actor = Learner::policy(plan, start.weights.duplicate(&plan.config, Head::Language, start.device()));
        let kl = Controller::new(ppo.kl_coef, ppo.kl_target, ppo.kl_horizon);
        Self { actor, critic, reference, kl }
    }

    /// Puts actor and critic, weights and optimizers, back to where a checkpoint left them.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let actor = &self.actor.model;
        actor.weights.fill(&checkpoint.model(), &actor.config)?;
        if let Some(critic) = &self.critic {
            critic.weights().fill(&checkpoint.critic(), &actor.config)?;
        }
        load_tensors(&checkpoint.optimizer(), &mut self.optimizer_state())
    }

    /// The state of all optimizers, by name.
    pub fn optimizer_state(&self) -> Vec<(String, tch::Tensor)> {
        let mut state = named("actor", &self.actor.optimizer);
        state.extend(self.critic.iter().flat_map(|critic| named("critic", critic.optimizer())));
        state
    }
}

fn named(owner: &str, optimizer: &AdamW) -> Vec<(String, tch::Tensor)> {
    optimizer.state().into_iter().map(|(name, tensor)| (format!("{owner}.{name}"), tensor)).collect()
}

/// The longest sequence of a run, in tokens.
pub fn longest(plan: &Plan) -> i64 {
    let rollout = plan.recipe.rollout.max_prompt_tokens + plan.recipe.rollout.max_response_tokens;
    rollout.max(plan.recipe.sft.as_ref().map_or(0, |sft| sft.context)) as i64
}

/// The recipe's starting weights: read from its model folder, or drawn.
pub fn starting_weights(plan: &Plan, device: Device) -> Result<Weights> {
    if plan.recipe.model.random_weights {
        let kind = compute_kind(plan.recipe.device.precision);
        return Weights::random(&plan.config, Head::Language, kind, device, plan.recipe.seed);
    }
    weights_of(plan, &plan.recipe.model.path, device)
}

/// A language model of the plan's shape and precision from a Hugging Face folder.
///
/// # Errors
/// Bad input: weights that are missing, damaged, or of another shape.
pub fn weights_of(plan: &Plan, dir: &Path, device: Device) -> Result<Weights> {
    let kind = compute_kind(plan.recipe.device.precision);
    Weights::load(dir, &plan.config, Head::Language, kind, device).map_err(|e| BadInput(format!("{e:#}")).into())
}

/// The kind that weights and activations have.
pub fn compute_kind(precision: Precision) -> Kind {
    match precision {
        Precision::Float32 => Kind::Float,
        Precision::Bfloat16 => Kind::BFloat16,
    }
}

/// The device of a recipe's `device.device`.
///
/// # Errors
/// Bad input: a GPU that this libtorch or machine does not have.
pub fn device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(Device::cuda_if_available()),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
    };
    let gpus = tch::Cuda::device_count();
    match index {
        Some(index) if (index as i64) < gpus => Ok(Device::Cuda(index)),
        Some(_) => Err(BadInput(format!(
            "device.device = \"{name}\": this machine and its libtorch offer {gpus} CUDA devices (scripts/setup --cuda)"
        ))),
        None => Err(BadInput(format!("device.device = \"{name}\": expected cpu, cuda, cuda:N or auto"))),
    }
    .map_err(Into::into)
}
