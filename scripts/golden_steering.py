"""Writes the golden logits of steered models: tests/golden/steering.safetensors.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python scripts/golden_steering.py [OUT]       # OUT: tests/golden, which has the models of golden_model.py

Two random models of tests/golden, run by transformers in float32 on one CPU thread, with a forward hook on one decoder
layer that adds a strength times a direction to what the layer returns. Of each model, with S strengths and T tokens:

    MODEL.prompt [5], MODEL.direction [H], MODEL.strengths [S]
    MODEL.CASE.tokens [S, T]            the most probable ones, decoded with a cache
    MODEL.CASE.logits [S, T, V]         what each of them was chosen by

CASE is LAYER.response if the hook acts on decoded tokens alone, LAYER.prompt if also on the prompt's, LAYER.after_begin
if on these without the first.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
STRENGTHS = [-4.0, 0.0, 2.5, 6.0]
TOKENS = 10
CASES = [(0, "response"), (0, "prompt"), (0, "after_begin"), (1, "response")]
FIRST = {"response": None, "prompt": 0, "after_begin": 1}


def steered(model, prompt, direction, layer, first):
    """Greedy tokens [S, T] and their logits [S, T, V]; prompt tokens are steered from `first` on, if it is not None."""
    added = torch.tensor(STRENGTHS)[:, None, None] * direction
    reading = True

    def hook(module, args, output):
        stream = output[0] if isinstance(output, tuple) else output
        assert stream.shape[0] == len(STRENGTHS)
        if reading and first is None:
            return output
        stream = stream.clone()
        stream[:, first if reading else 0 :] += added
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = model.model.layers[layer].register_forward_hook(hook)
    ids, cache, tokens, logits = prompt.repeat(len(STRENGTHS), 1), None, [], []
    with torch.no_grad():
        for _ in range(TOKENS):
            output = model(input_ids=ids, past_key_values=cache, use_cache=True)
            reading = False
            logits.append(output.logits[:, -1])
            ids, cache = logits[-1].argmax(-1, keepdim=True), output.past_key_values
            tokens.append(ids)
    handle.remove()
    return torch.cat(tokens, 1), torch.stack(logits, 1)


def main(out):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    golden = {}
    for name, seed in [("qwen2_tiny", 5), ("llama_tiny", 1)]:
        model = AutoModelForCausalLM.from_pretrained(GOLDEN / name, attn_implementation="eager").eval()
        rng = torch.Generator().manual_seed(seed)
        prompt = torch.randint(model.config.vocab_size, (5,), generator=rng)
        direction = torch.randn(model.config.hidden_size, generator=rng)
        direction /= direction.norm()
        golden |= {f"{name}.prompt": prompt, f"{name}.direction": direction}
        golden[f"{name}.strengths"] = torch.tensor(STRENGTHS)
        plain = []
        for layer, case in CASES:
            tokens, logits = steered(model, prompt, direction, layer, FIRST[case])
            top = logits.topk(2).values
            margin = (top[..., 0] - top[..., 1]).min().item()
            assert margin > 0.005, f"{name} {layer} {case}: margin {margin}: choose another seed"
            assert len({tuple(row) for row in tokens.tolist()}) == len(STRENGTHS), "strengths that change no token"
            plain.append(tokens[STRENGTHS.index(0)])
            golden |= {f"{name}.{layer}.{case}.tokens": tokens, f"{name}.{layer}.{case}.logits": logits.contiguous()}
        assert all(torch.equal(plain[0], tokens) for tokens in plain), "a strength of 0 steers"
    save_file(golden, out / "steering.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
