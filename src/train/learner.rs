//! A model that learns, with its optimizer; and the models of a run.

use crate::checkpoint::{Checkpoint, load_parts};
use crate::dist::{Comm, Held};
use crate::model::{Critic, Head, Policy, ValueHead, Weights, critic_weights};
use crate::optim::AdamW;
use crate::plan::Plan;
use crate::recipe::{CriticModel, Ppo};
use anyhow::Result;
use tch::Device;

/// A model and its optimizer.
pub struct Learner<M> {
    pub model: M,
    pub optimizer: AdamW,
}

impl Learner<Policy> {
    pub fn policy(plan: &Plan, weights: Weights, comm: &dyn Comm) -> Self {
        let mut model = Policy::trainable(&plan.config, weights);
        model.decoder.gradient_checkpointing = plan.recipe.memory.gradient_checkpointing;
        Self { optimizer: optimizer(plan, &model.weights, comm), model }
    }
}

/// What estimates the return from each token onwards.
pub enum Estimator {
    /// A separate model.
    Critic(Box<Learner<Critic>>),
    /// A head on the actor's decoder, which then learns from both losses.
    Head(Box<Learner<ValueHead>>),
}

impl Estimator {
    fn new(plan: &Plan, sharing: CriticModel, start: &Policy, comm: &dyn Comm) -> Self {
        if sharing == CriticModel::Shared {
            let flat = start.weights.flat();
            let weights = Weights::zeros(&plan.config, Head::ValueOnly, flat.kind(), flat.device());
            let model = ValueHead::trainable(weights);
            return Self::Head(Box::new(Learner { optimizer: optimizer(plan, &model.weights, comm), model }));
        }
        let mut model = Critic::trainable(&plan.config, critic_weights(&plan.config, &start.weights));
        model.decoder.gradient_checkpointing = plan.recipe.memory.gradient_checkpointing;
        Self::Critic(Box::new(Learner { optimizer: optimizer(plan, &model.weights, comm), model }))
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

fn optimizer(plan: &Plan, weights: &Weights, comm: &dyn Comm) -> AdamW {
    let memory = &plan.recipe.memory;
    let new = if memory.offload_optimizer { AdamW::offloaded } else { AdamW::new };
    let optimizer = new(weights, comm);
    if memory.divide_gradients { optimizer.dividing_gradients(comm) } else { optimizer }
}

/// The frozen model that the KL is measured against. It scores on the actor's device, and may be kept on the host.
pub struct Reference {
    resting: Policy,
    device: Device,
}

impl Reference {
    /// `resting`: the model where it stays between uses.
    pub fn new(resting: Policy, device: Device) -> Self {
        Self { resting, device }
    }

    fn of(plan: &Plan, start: &Policy) -> Self {
        let device = start.device();
        let home = if plan.recipe.memory.offload_reference { Device::Cpu } else { device };
        let weights = start.weights.copy_to(home);
        Self::new(Policy::new(&plan.config, weights), device)
    }

    /// Calls `work` with the model on `device`: if it stays elsewhere, with a copy that is freed afterwards.
    pub fn with<T>(&self, work: impl FnOnce(&Policy) -> T) -> T {
        if self.resting.device() == self.device {
            return work(&self.resting);
        }
        work(&Policy::new(&self.resting.config, self.resting.weights.copy_to(self.device)))
    }
}

/// The models of a PPO run: an actor, a critic if advantages need one, a frozen reference if there is a KL penalty.
pub struct Models {
    pub actor: Learner<Policy>,
    pub critic: Option<Estimator>,
    pub reference: Option<Reference>,
}

impl Models {
    /// The models at the first step: actor and critic start from `start`, and the reference stays there.
    pub fn new(plan: &Plan, ppo: &Ppo, start: Policy, comm: &dyn Comm) -> Self {
        let reference = ppo.needs_reference().then(|| Reference::of(plan, &start));
        let critic = ppo.needs_critic().then(|| Estimator::new(plan, ppo.critic, &start, comm));
        // A copy, since the weights of the warm start are tied to its optimizer's buffers.
        let actor = Learner::policy(plan, start.weights.copy_to(start.device()), comm);
        Self { actor, critic, reference }
    }

    /// Restores actor and critic, weights and optimizers, from a checkpoint.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let actor = &self.actor.model;
        actor.weights.fill(&checkpoint.model(), &actor.config)?;
        if let Some(critic) = &self.critic {
            critic.weights().fill(&checkpoint.critic(), &actor.config)?;
        }
        load_parts(&checkpoint.optimizer(), self.optimizer_state())
    }

    /// The state of all optimizers, by name; of what is divided this rank's part.
    pub fn optimizer_state(&self) -> Vec<Held> {
        let named = |(owner, optimizer): (&str, &AdamW)| {
            let state = optimizer.state().into_iter();
            state.map(|(name, own, part)| (format!("{owner}.{name}"), own, part)).collect::<Vec<_>>()
        };
        self.optimizers().flat_map(named).collect()
    }

    fn optimizers(&self) -> impl Iterator<Item = (&'static str, &AdamW)> {
        let critic = self.critic.iter().map(|critic| ("critic", critic.optimizer()));
        std::iter::once(("actor", &self.actor.optimizer)).chain(critic)
    }
}
