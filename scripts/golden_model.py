"""Writes the golden tensors of the decoder: tests/golden/{qwen2,qwen3,llama}_tiny* and tests/golden/optim_losses.json.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python scripts/golden_model.py [OUT]          # OUT: tests/golden

Three random models in the three families the trainer reads, run by transformers in float32 on one CPU thread. Together
they cover grouped queries, tied and untied heads, biases, norms on heads, a head_dim that is not hidden_size / heads,
and all three branches of the llama3 rope scaling. A model's folder is what `save_pretrained` writes; NAME.safetensors
holds, with B = 3 and T = 12:

    ids [B, T], lengths [B]     right padding with random ids: masks must come from lengths, never from ids
    logits [B, T, V]            zero at padded positions
    logprobs [B, T-1]           of token t+1 given tokens 0..=t; zero if t+1 is padding
    grad.<parameter>            of the mean of -logprob over valid positions; a tied head's share is in the embedding's
    long_ids [1, 40], long_logits [1, 4, V]         the last four positions
    greedy_prompt [5], greedy_tokens [16]           the prompt is not repeated in the tokens
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

VOCAB = 64
GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def qwen2_config():
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        eos_token_id=63,
        attn_implementation="eager",
    )


def qwen3_config():
    """As in Qwen3: no biases, heads wider than hidden_size / heads, each with a norm on queries and keys."""
    return Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        eos_token_id=63,
        attn_implementation="eager",
    )


def llama_config():
    """Wavelengths 6.3, 19.9 and 62.8, 199 and more: kept (below 64/4), interpolated, divided by 32 (above 64)."""
    scaling = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, **scaling},
        tie_word_embeddings=False,
        bos_token_id=62,
        eos_token_id=[61, 63],
        attn_implementation="eager",
    )


def randomise(model, rng):
    """Weights large enough that each of them affects the output, norms and biases included."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias") or "embed_tokens" in name:
                p.copy_(0.3 * noise)
            else:
                p.copy_(1.5 * noise / p.shape[1] ** 0.5)
    return model.eval()


def next_token_logprobs(model, ids, lengths):
    """Logits, log-probs of the next tokens, and the mask of those that are real: [B, T, V], [B, T-1], [B, T-1]."""
    positions = torch.arange(ids.shape[1])
    logits = model(input_ids=ids, attention_mask=(positions < lengths[:, None]).long(), use_cache=False).logits
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return logits, logprobs, positions[1:] < lengths[:, None]


def model_case(model, rng):
    ids = torch.randint(VOCAB, (3, 12), generator=rng)
    lengths = torch.tensor([12, 5, 9])
    logits, logprobs, valid = next_token_logprobs(model, ids, lengths)
    model.zero_grad()
    (-logprobs[valid].mean()).backward()
    case = {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
    assert all(g.abs().max() > 1e-6 for g in case.values()), "a parameter without a gradient proves nothing"

    real = torch.arange(12) < lengths[:, None]
    long_ids = torch.randint(VOCAB, (1, 40), generator=rng)
    prompt = torch.randint(VOCAB, (1, 5), generator=rng)
    with torch.no_grad():
        long_logits = model(input_ids=long_ids, use_cache=False).logits[:, -4:]
        mask = torch.ones_like(prompt)
        whole = model.generate(prompt, attention_mask=mask, max_new_tokens=16, do_sample=False, pad_token_id=0)
        top = model(input_ids=whole, use_cache=False).logits[0, 4:-1].topk(2)
    ended = whole.shape != (1, 21) or whole[0, -1].item() in (61, 63)
    assert not ended, "the greedy continuation reaches an end-of-sequence token: choose another seed"
    assert torch.equal(whole[0, 5:], top.indices[:, 0]), "generation with a cache differs from the full forward"
    margin = (top.values[:, 0] - top.values[:, 1]).min().item()
    kinds = whole[0, 5:].unique().numel()
    assert margin > 0.01 and kinds > 7, f"greedy: margin {margin}, {kinds} different tokens: choose another seed"
    return case | {
        "ids": ids,
        "lengths": lengths,
        "logits": (logits * real[..., None]).detach(),
        "logprobs": (logprobs * valid).detach(),
        "long_ids": long_ids,
        "long_logits": long_logits.contiguous(),
        "greedy_prompt": prompt[0],
        "greedy_tokens": whole[0, 5:].clone(),
    }


def optimizer_losses(model, ids, lengths):
    """The loss before each of ten AdamW steps: one wrong gradient or moment makes them diverge."""
    settings = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False, **settings)
    losses = []
    for _ in range(10):
        _, logprobs, valid = next_token_logprobs(model, ids, lengths)
        loss = -logprobs[valid].mean()
        losses.append(float(f"{loss.item():.9g}"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"model": "llama_tiny", **settings, "losses": losses}


def main(out):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    for name, family, config, seed in [
        ("qwen2_tiny", Qwen2ForCausalLM, qwen2_config(), 17),
        ("qwen3_tiny", Qwen3ForCausalLM, qwen3_config(), 5),
        ("llama_tiny", LlamaForCausalLM, llama_config(), 3),
    ]:
        rng = torch.Generator().manual_seed(seed)
        model = randomise(family(config), rng)
        model.save_pretrained(out / name)
        case = model_case(model, rng)
        save_file(case, out / f"{name}.safetensors")
    losses = optimizer_losses(model, case["ids"], case["lengths"])  # of the Llama
    (out / "optim_losses.json").write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
