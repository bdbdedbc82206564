"""A peer for `ppo-train bench`: a PPO step as a plain loop over transformers does it, on the CPU.

    ppo-train bench --config config.json --prompts 32 --response-tokens 64 --json > here.json
    scripts/transformers scripts/peer_step.py config.json here.json > peer.json
    ppo-train bench --config config.json --prompts 32 --response-tokens 64 --against peer.json

`generate` writes the responses, actor and reference score them, a critic of its own says values, and both learn from
one clipped update with torch's fused AdamW, whose moments have the precision of the weights (there are no float32
master weights, as in a plain loop). Sequences are padded; micro-batches hold those of similar length.
"""

import os
import time

from peer_work import Work

work = Work(__doc__.splitlines()[0])
os.environ["OMP_NUM_THREADS"] = str(work.threads)

import torch  # noqa: E402  (after the number of threads)
from torch.nn.functional import linear  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList  # noqa: E402
from transformers import __version__ as transformers_version  # noqa: E402

torch.set_num_threads(work.threads)
torch.manual_seed(0)
KIND = getattr(torch, work.precision)
CONFIG = AutoConfig.for_model(**work.config)
PROMPTS, RESPONSES, LENGTHS = (torch.tensor(x) for x in (work.prompts, work.responses, work.lengths))
WIDTH = max(work.prompts)


def model():
    return AutoModelForCausalLM.from_config(CONFIG, dtype=KIND, attn_implementation="sdpa")


actor, reference, critic = model(), model().eval(), model()
reference.load_state_dict(actor.state_dict())
head = torch.nn.Linear(CONFIG.hidden_size, 1, dtype=KIND)
critic_weights = list(critic.model.parameters()) + list(head.parameters())
actor_steps = torch.optim.AdamW(actor.parameters(), lr=1e-6, fused=True)
critic_steps = torch.optim.AdamW(critic_weights, lr=1e-5, fused=True)


class Ends(StoppingCriteria):
    """Each row ends at its own length, and waits as padding for the longest."""

    def __call__(self, input_ids, scores, **_):
        return input_ids.shape[1] - WIDTH >= RESPONSES


def rollouts():
    """Responses [B, longest], to prompts that are padded on the left."""
    prompts = torch.randint(5, CONFIG.vocab_size, (len(PROMPTS), WIDTH))
    mask = (torch.arange(WIDTH) >= WIDTH - PROMPTS[:, None]).long()
    longest = int(RESPONSES.max())
    written = actor.generate(
        prompts,
        attention_mask=mask,
        max_new_tokens=longest,
        min_new_tokens=longest,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
        eos_token_id=None,
        stopping_criteria=StoppingCriteriaList([Ends()]),
    )
    return prompts, written[:, WIDTH:]


def micro_batches(prompts, written):
    """Row numbers, ids [b, T] padded on the right, and which positions [b, T - 1] predict a response token."""
    order = sorted(range(len(LENGTHS)), key=lambda i: -work.lengths[i])
    cut, current = [], []
    for i in order:
        if current and work.lengths[current[0]] * (len(current) + 1) > work.micro_batch_tokens:
            cut.append(current)
            current = []
        current.append(i)
    cut.append(current)
    for rows in cut:
        width = work.lengths[rows[0]]
        ids, read = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width - 1, dtype=bool)
        for at, i in enumerate(rows):
            p, r = work.prompts[i], work.responses[i]
            ids[at, :p], ids[at, p : p + r] = prompts[i, WIDTH - p :], written[i, :r]
            read[at, p - 1 : p + r - 1] = True
        yield rows, ids, read


def log_probs(of, ids, read):
    logits = of(ids).logits[:, :-1][read].float()
    return torch.log_softmax(logits, -1).gather(-1, ids[:, 1:][read][:, None])[:, 0]


def values(ids, read):
    return head(critic.model(ids).last_hidden_state)[:, :-1, 0][read].float()


def update(batches, loss, weights, optimizer):
    for at, batch in enumerate(batches):
        loss(at, *batch[1:]).backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step():
    took, begun = {}, time.perf_counter()

    def lap(stage):
        nonlocal begun
        now = time.perf_counter()
        took[stage], begun = now - begun, now

    with torch.no_grad():
        actor.eval()
        batches = list(micro_batches(*rollouts()))
        lap("gen")
        old = [log_probs(actor, ids, read) for _, ids, read in batches]
        lap("old_log_prob")
        ref = [log_probs(reference, ids, read) for _, ids, read in batches]
        lap("ref")
        seen = [values(ids, read) for _, ids, read in batches]
        lap("values")
        # Returns with a discount of one: the score, less the KL penalty of the tokens that follow.
        returns, advantages = [], []
        for (rows, _, read), o, f, v in zip(batches, old, ref, seen, strict=True):
            ends, gained = torch.cumsum(read.sum(1), 0), 0.001 * (f - o)
            gained[ends - 1] += torch.tensor([float(i % 2) for i in rows])
            parts = torch.split(gained, read.sum(1).tolist())
            returns.append(torch.cat([part.flip(0).cumsum(0).flip(0) for part in parts]))
            advantages.append(returns[-1] - v)
        every = torch.cat(advantages)
        advantages = [(a - every.mean()) / (every.std() + 1e-8) for a in advantages]
    tokens = sum(work.responses)
    begun = time.perf_counter()

    def critic_loss(at, ids, read):
        return 0.5 * (values(ids, read) - returns[at]).square().sum() / tokens

    def actor_loss(at, ids, read):
        ratio = (log_probs(actor, ids, read) - old[at]).exp()
        return -torch.min(ratio * advantages[at], ratio.clamp(0.8, 1.2) * advantages[at]).sum() / tokens

    update(batches, critic_loss, critic_weights, critic_steps)
    lap("update_critic")
    actor.train()
    update(batches, actor_loss, list(actor.parameters()), actor_steps)
    lap("update_actor")
    return took


def ceiling():
    """GFLOP/s of the fastest of the products that `ppo-train bench` measures."""
    hidden, inner, best = CONFIG.hidden_size, CONFIG.intermediate_size, 0.0
    rows = min(max(1_000_000_000 // (hidden * inner), 256), 4096)
    for m, k, n in [(rows, hidden, inner), (rows, inner, hidden), (1024, 1024, 1024)]:
        a, b = torch.full((m, k), 0.5, dtype=KIND), torch.full((n, k), 0.5, dtype=KIND)
        until = time.perf_counter() + 0.4
        while time.perf_counter() < until:
            begun = time.perf_counter()
            linear(a, b)
            best = max(best, 2 * m * k * n / (time.perf_counter() - begun) / 1e9)
    return best


step()
times = [step() for _ in range(work.steps)]
with torch.no_grad():
    work.report(f"transformers {transformers_version}, torch {torch.__version__}", times, ceiling())
