"""Records one whole PPO update in plain PyTorch, and small cases of its pure functions in numpy.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python scripts/golden_ppo.py [OUT]            # OUT: tests/golden; after golden_model.py: qwen2_tiny is the actor

ppo_update.json holds the settings under their recipe names, and the metrics of every optimizer step under the names
that dashboards use.
ppo_update.safetensors holds, for 8 sequences (4 prompts x 2 samples, neighbours share a prompt) of N response tokens:

    prompt_ids, response_ids                        int64, sequence after sequence, no padding (a shared prompt twice)
    prompt_lengths [8], response_lengths [8], scores [8]
    old_logp, ref_logp, values, rewards, advantages (whitened), returns [N]     in the order of response_ids
    ref.*, critic.*, actor_new.*, critic_new.*      weights before (the actor's: qwen2_tiny) and after

ppo_shared.json and ppo_shared.safetensors hold the same update with a value head on the actor's decoder as the critic
(`ppo.critic = "shared"`): one loss; the head has the critic's learning rate and its own gradient norm. old_logp,
ref_logp and the sequences are those above; score.* is the head before, new.* the head and two decoder tensors after.

Each sequence goes through the models by itself, so nothing here depends on a mask. The semantics are verl's.
algo.json is computed in float64 straight from the definitions, with loops, and shares no code with the update.
"""

import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Qwen2ForCausalLM, Qwen2ForTokenClassification
from transformers.utils.logging import disable_progress_bar

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
PPO = {
    "advantage": "gae",
    "gamma": 0.99,
    "lambda": 0.95,
    "whiten": True,
    "epochs": 1,
    "mini_batch": 4,
    # The rates and the decay are large, so that the second update reaches every clip and a missing decay shows. Adam
    # divides a gradient by its own size: eps is large, so that float noise in a gradient near zero stays small.
    "actor_lr": 1e-2,
    "critic_lr": 2e-2,
    "weight_decay": 0.1,
    "betas": [0.9, 0.999],
    "adam_eps": 1e-5,
    "grad_clip": 1.0,
    "clip_low": 0.2,
    "clip_high": 0.28,
    "clip_dual": 3.0,
    "value_clip": 0.5,
    "value_coef": 0.5,
    "entropy_coef": 0.001,
    "kl_coef": 0.1,
    "kl_in": "reward",
    "kl_estimator": "k1",
    "aggregation": "token_mean",
}
TEMPERATURE = 0.9


# --- the update, in PyTorch -------------------------------------------------------------------------------------------


def response_logits(model, prompt, response):
    """Outputs at the positions that predict the response's tokens: [R, V], or [R, 1] for the critic."""
    outputs = model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0]
    return outputs[len(prompt) - 1 : -1]


def logp_and_entropy(model, sequences):
    """Log-probability of each response token and entropy of its distribution at the sampling temperature: [N], [N]."""
    logps, entropies = [], []
    for prompt, response in sequences:
        log_p = (response_logits(model, prompt, response) / TEMPERATURE).log_softmax(-1)
        logps.append(log_p.gather(-1, response[:, None]).squeeze(-1))
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return torch.cat(logps), torch.cat(entropies)


def critic_values(model, sequences):
    """The value before each response token, read where that token is predicted: [N]."""
    return torch.cat([response_logits(model, *s).squeeze(-1) for s in sequences])


def estimates(old_logp, ref_logp, scores, values, lengths):
    """Token rewards, whitened advantages and returns of all sequences: [N] each."""
    rewards = -PPO["kl_coef"] * (old_logp - ref_logp)
    rewards[torch.tensor(lengths).cumsum(0) - 1] += scores
    advantages = torch.cat([gae(r, v) for r, v in zip(rewards.split(lengths), values.split(lengths))])
    returns = advantages + values
    advantages = (advantages - advantages.mean()) / torch.sqrt(advantages.var(unbiased=True) + 1e-8)
    assert abs(advantages.mean().item()) < 1e-6 and abs(advantages.var().item() - 1) < 1e-5
    return rewards, advantages, returns


def gae(rewards, values):
    """Advantages of one sequence, nothing bootstrapped after its end: [R] -> [R]."""
    advantages, carry, next_value = torch.zeros_like(values), 0.0, 0.0
    for t in reversed(range(len(values))):
        delta = rewards[t] + PPO["gamma"] * next_value - values[t]
        carry = delta + PPO["gamma"] * PPO["lambda"] * carry
        advantages[t], next_value = carry, values[t]
    return advantages


def policy_loss(logp, old_logp, entropy, advantages):
    ratio = (logp - old_logp).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - PPO["clip_low"], 1 + PPO["clip_high"])
    worst = torch.maximum(plain, clipped)
    bound = -advantages * PPO["clip_dual"]
    losses = torch.where(advantages < 0, torch.minimum(worst, bound), worst)
    figures = {
        "actor/pg_loss": losses.mean(),
        "actor/pg_clipfrac": (clipped > plain).float().mean(),
        "actor/pg_clipfrac_lower": ((worst > bound) & (advantages < 0)).float().mean(),
        "actor/entropy": entropy.mean(),
        "actor/ppo_kl": (old_logp - logp).mean(),
    }
    return losses.mean() - PPO["entropy_coef"] * entropy.mean(), figures


def value_loss(values, old_values, returns):
    near = torch.clamp(values, old_values - PPO["value_clip"], old_values + PPO["value_clip"])
    plain, clipped = (values - returns) ** 2, (near - returns) ** 2
    loss = PPO["value_coef"] * torch.maximum(plain, clipped).mean()
    figures = {
        "critic/vf_loss": loss,
        "critic/vf_clipfrac": (clipped > plain).float().mean(),
        "critic/vpred_mean": values.mean(),
    }
    return loss, figures


def train(rates, lengths, loss_of):
    """One epoch over the mini-batches in order, for models by name with their rates. `loss_of(sequences, tokens)` takes
    two slices of the step's."""
    settings = {"betas": PPO["betas"], "eps": PPO["adam_eps"], "weight_decay": PPO["weight_decay"]}
    optimizers = [torch.optim.AdamW(m.parameters(), lr=lr, foreach=False, **settings) for m, lr in rates.values()]
    updates = []
    for first in range(0, len(lengths), PPO["mini_batch"]):
        sequences = slice(first, first + PPO["mini_batch"])
        start = sum(lengths[:first])
        loss, figures = loss_of(sequences, slice(start, start + sum(lengths[sequences])))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for (name, (model, _)), optimizer in zip(rates.items(), optimizers):
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), PPO["grad_clip"], foreach=False)
            figures[f"{name}/grad_norm"] = norm
            optimizer.step()
        updates.append({k: float(f"{v.item():.9g}") for k, v in figures.items()})
    return updates


def models(folder, rng):
    """Actor, reference (the actor and a little noise) and critic (another trunk, a small head), all float32."""
    actor, ref = (Qwen2ForCausalLM.from_pretrained(folder, attn_implementation="eager").eval() for _ in range(2))
    config = copy.deepcopy(actor.config)
    config.num_labels = 1
    critic = Qwen2ForTokenClassification(config).eval()
    with torch.no_grad():
        for p in ref.parameters():
            p.add_(0.03 * torch.randn(p.shape, generator=rng))
        weights = dict(actor.named_parameters())
        for name, p in critic.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            p.copy_(0.05 * noise if name.startswith("score") else weights[name] + 0.2 * noise)
    return actor, ref, critic


def rollouts(rng, vocab):
    """Eight sequences as (prompt, response), and their scores."""
    prompts = [torch.randint(vocab, (n,), generator=rng) for n in (4, 6, 3, 5)]
    lengths = [7, 2, 9, 5, 3, 8, 6, 2]
    sequences = [(prompts[i // 2], torch.randint(vocab, (n,), generator=rng)) for i, n in enumerate(lengths)]
    return sequences, torch.tensor([1.0, 0.1, 0.0, 1.0, 0.1, 0.0, 1.0, 0.1])


def ppo_update(folder, dtype=torch.float32):
    rng = torch.Generator().manual_seed(11)
    actor, ref, critic = (m.to(dtype) for m in models(folder, rng))
    sequences, scores = rollouts(rng, actor.config.vocab_size)
    scores = scores.to(dtype)
    lengths = [len(response) for _, response in sequences]
    tensors = {f"ref.{k}": v.detach().clone() for k, v in ref.named_parameters()}
    tensors |= {f"critic.{k}": v.detach().clone() for k, v in critic.named_parameters()}

    with torch.no_grad():
        old_logp, ref_logp = logp_and_entropy(actor, sequences)[0], logp_and_entropy(ref, sequences)[0]
        values = critic_values(critic, sequences)
    rewards, advantages, returns = estimates(old_logp, ref_logp, scores, values, lengths)

    def critic_loss(rows, tokens):
        return value_loss(critic_values(critic, sequences[rows]), values[tokens], returns[tokens])

    def actor_loss(rows, tokens):
        logp, entropy = logp_and_entropy(actor, sequences[rows])
        return policy_loss(logp, old_logp[tokens], entropy, advantages[tokens])

    figures = {
        "critic_updates": train({"critic": (critic, PPO["critic_lr"])}, lengths, critic_loss),
        "actor_updates": train({"actor": (actor, PPO["actor_lr"])}, lengths, actor_loss),
    }
    first, second = figures["actor_updates"]
    assert first["actor/ppo_kl"] == 0 and first["actor/pg_clipfrac"] == 0, "the first ratio is one"
    clips = [second[f"actor/pg_{name}"] for name in ("clipfrac", "clipfrac_lower")]
    clips.append(figures["critic_updates"][1]["critic/vf_clipfrac"])
    assert all(share > 0 for share in clips), f"a clip is never reached: {clips}: choose another seed"
    tensors |= {f"actor_new.{k}": v.detach() for k, v in actor.named_parameters()}
    tensors |= {f"critic_new.{k}": v.detach() for k, v in critic.named_parameters()}
    tensors |= {
        "prompt_ids": torch.cat([prompt for prompt, _ in sequences]),
        "prompt_lengths": torch.tensor([len(prompt) for prompt, _ in sequences]),
        "response_ids": torch.cat([response for _, response in sequences]),
        "response_lengths": torch.tensor(lengths),
        "scores": scores,
        "old_logp": old_logp,
        "ref_logp": ref_logp,
        "values": values,
        "rewards": rewards,
        "advantages": advantages,
        "returns": returns,
    }
    settings = {"ppo": PPO, "rollout": {"temperature": TEMPERATURE, "prompts_per_step": 4, "samples_per_prompt": 2}}
    return tensors, settings | figures


def shared_update(folder):
    """The update with a value head on the actor's decoder."""
    rng = torch.Generator().manual_seed(11)
    actor, ref, _ = models(folder, rng)
    sequences, scores = rollouts(rng, actor.config.vocab_size)
    lengths = [len(response) for _, response in sequences]
    head = torch.nn.Linear(actor.config.hidden_size, 1)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=rng))
    tensors = {f"score.{k}": v.detach().clone() for k, v in head.named_parameters()}

    def head_values(sequences):
        hidden = [actor.model(torch.cat(s)[None]).last_hidden_state[0, len(s[0]) - 1 : -1] for s in sequences]
        return head(torch.cat(hidden)).squeeze(-1)

    with torch.no_grad():
        old_logp, ref_logp = logp_and_entropy(actor, sequences)[0], logp_and_entropy(ref, sequences)[0]
        values = head_values(sequences)
    _, advantages, returns = estimates(old_logp, ref_logp, scores, values, lengths)

    def loss_of(rows, tokens):
        logp, entropy = logp_and_entropy(actor, sequences[rows])
        policy, figures = policy_loss(logp, old_logp[tokens], entropy, advantages[tokens])
        value, more = value_loss(head_values(sequences[rows]), values[tokens], returns[tokens])
        return policy + value, figures | more

    updates = train({"actor": (actor, PPO["actor_lr"]), "critic": (head, PPO["critic_lr"])}, lengths, loss_of)
    after = {f"score.{k}": v for k, v in head.named_parameters()} | dict(actor.named_parameters())
    kept = ["score.weight", "score.bias", "model.norm.weight", "model.layers.0.self_attn.k_proj.weight"]
    tensors |= {f"new.{name}": after[name].detach() for name in kept}
    return tensors | {"values": values, "advantages": advantages, "returns": returns}, {"updates": updates}


# --- the pure functions, in numpy -------------------------------------------------------------------------------------


def gae_case(gamma, lam):
    """A_t as the sum over l of (gamma lambda)^l delta_{t+l}, not as the recursion."""
    rewards = [[0.0, -0.02, 0.01, 0.0, 0.9], [0.03, -0.01, 0.1]]
    values = [[0.2, 0.35, 0.1, -0.3, 0.6], [-0.4, 0.25, 0.05]]
    advantages = []
    for r, v in zip(rewards, values):
        delta = [r[t] + gamma * (v[t + 1] if t + 1 < len(v) else 0) - v[t] for t in range(len(v))]
        advantages.append([sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(v))) for t in range(len(v))])
    returns = [[a + x for a, x in zip(*pair)] for pair in zip(advantages, values)]
    return {"gamma": gamma, "lambda": lam, "rewards": rewards, "values": values} | {
        "advantages": advantages,
        "returns": returns,
    }


def group_cases():
    """GRPO: (s - mean) / (std with n - 1, plus 1e-6). RLOO: s minus the mean of the other samples."""
    scores = [[1.0, 0.1, 0.0, 0.1], [0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0]]
    grpo = [[(s - np.mean(g)) / (np.std(g, ddof=1) + 1e-6) for s in g] for g in scores]
    rloo = [[s - np.mean(g[:i] + g[i + 1 :]) for i, s in enumerate(g)] for g in scores]
    return {"scores": scores, "grpo": grpo, "rloo": rloo}


def kl_case():
    logp, ref = [-0.5, -2.0, -0.01, -4.0, -1.25], [-0.7, -1.5, -0.01, -2.5, -1.5]
    gaps = [a - b for a, b in zip(logp, ref)]
    k3 = [math.exp(-d) + d - 1 for d in gaps]
    return {"logp": logp, "ref_logp": ref, "k1": gaps, "k2": [d * d / 2 for d in gaps], "k3": k3}


def whiten_case():
    """Mean 0 and variance 1 (n - 1, plus 1e-8) over the masked-in values; zero elsewhere."""
    values = [[0.5, -1.0, 2.0, 9.0], [0.25, 3.0, -9.0, 9.0], [-0.75, 9.0, -9.0, 9.0]]
    mask = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    kept = [x for row, m in zip(values, mask) for x, keep in zip(row, m) if keep]
    mean = sum(kept) / len(kept)
    scale = math.sqrt(sum((x - mean) ** 2 for x in kept) / (len(kept) - 1) + 1e-8)
    whitened = [[(x - mean) / scale if keep else 0.0 for x, keep in zip(*rows)] for rows in zip(values, mask)]
    return {"values": values, "mask": mask, "whitened": whitened}


def policy_case():
    """Every branch of the clipped loss: both signs, ratio inside, below, above, and beyond the dual clip. Ragged."""
    ratio = [[1.0, 0.6, 1.5, 1.1], [1.0, 0.6, 1.5, 4.0, 0.95], [5.0]]
    advantages = [[1.2, 0.8, 0.5, -0.3], [-1.0, -0.7, -0.4, -1.5, 2.0], [0.6]]
    low, high, dual = 0.2, 0.28, 3.0
    losses, clipped, lower = [], 0, 0
    for r_row, a_row in zip(ratio, advantages):
        losses.append([])
        for r, a in zip(r_row, a_row):
            loss = max(-a * r, -a * min(max(r, 1 - low), 1 + high))
            clipped += loss > -a * r
            if a < 0 and loss > -a * dual:
                loss, lower = -a * dual, lower + 1
            losses[-1].append(loss)
    count = sum(map(len, losses))
    logp = [[math.log(r) - 1.5 for r in row] for row in ratio]
    return {"clip_low": low, "clip_high": high, "clip_dual": dual, "logp": logp, "advantages": advantages} | {
        "old_logp": [[-1.5] * len(row) for row in ratio],
        "losses": losses,
        "token_mean": sum(map(sum, losses)) / count,
        "sequence_mean": float(np.mean([np.mean(row) for row in losses])),
        "pg_clipfrac": clipped / count,
        "pg_clipfrac_lower": lower / count,
        "ppo_kl": -sum(math.log(r) for row in ratio for r in row) / count,
    }


def value_case():
    """`loss` includes the coefficient."""
    values, old, returns = [0.1, 1.0, -0.9, 0.7, 0.6], [0.0, 0.2, 0.1, 0.1, 0.0], [0.5, 0.1, 0.4, 1.5, 0.7]
    clip, coef, losses, clipped = 0.5, 0.5, [], 0
    for v, o, r in zip(values, old, returns):
        plain, near = (v - r) ** 2, (min(max(v, o - clip), o + clip) - r) ** 2
        losses.append(max(plain, near))
        clipped += near > plain
    loss = coef * sum(losses) / len(losses)
    return {"value_clip": clip, "value_coef": coef, "values": values, "old_values": old, "returns": returns} | {
        "losses": losses,
        "loss": loss,
        "vf_clipfrac": clipped / len(losses),
    }


def main(out):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    tensors, figures = ppo_update(out / "qwen2_tiny")
    save_file(tensors, out / "ppo_update.safetensors")
    (out / "ppo_update.json").write_text(json.dumps(figures, indent=1) + "\n")
    tensors, figures = shared_update(out / "qwen2_tiny")
    save_file(tensors, out / "ppo_shared.safetensors")
    (out / "ppo_shared.json").write_text(json.dumps(figures, indent=1) + "\n")
    cases = {
        "gae": [gae_case(0.99, 0.95), gae_case(1.0, 1.0)],
        "groups": group_cases(),
        "kl": kl_case(),
        "whiten": whiten_case(),
        "policy_loss": policy_case(),
        "value_loss": value_case(),
    }
    (out / "algo.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
