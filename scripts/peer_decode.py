"""A peer for the rollouts of `ppo-train bench`: CTranslate2 decodes the same prompts and responses, on the CPU.

    ppo-train bench --config config.json --prompts 32 --response-tokens 64 --json > here.json
    scripts/ctranslate2 scripts/peer_decode.py config.json here.json --precision float32 > peer.json
    ppo-train bench --config config.json --prompts 32 --response-tokens 64 --against peer.json

Llama and Qwen2; random weights. All responses are as long as the longest, since it ends none of them at a length of
its own; its file has a stage for `gen` alone.
"""

import sys
import tempfile
import time

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from peer_work import Work

work = Work(__doc__.splitlines()[0])
c = work.config
if c["model_type"] not in ("llama", "qwen2"):
    sys.exit(f"model_type is {c['model_type']}: expected llama or qwen2")
hidden, inner, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
heads = c["num_attention_heads"]
kv = c.get("num_key_value_heads", heads)
size = c.get("head_dim") or hidden // heads
rng = np.random.default_rng(0)


def normal(rows, columns):
    return (0.02 * rng.standard_normal((rows, columns))).astype(np.float32)


def spec():
    model = transformer_spec.TransformerDecoderModelSpec.from_config(
        layers,
        heads,
        pre_norm=True,
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=c.get("rope_theta", 10000.0),
        num_heads_kv=kv,
        head_dim=size,
    )
    decoder, ones = model.decoder, np.ones(hidden, np.float32)
    decoder.scale_embeddings = False
    decoder.embeddings.weight = normal(c["vocab_size"], hidden)
    decoder.projection.weight = decoder.embeddings.weight
    decoder.layer_norm.gamma = ones
    for layer in decoder.layer:
        attention, ffn = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = ffn.layer_norm.gamma = ones
        attention.linear[0].weight = normal((heads + 2 * kv) * size, hidden)
        if c["model_type"] == "qwen2":
            attention.linear[0].bias = np.zeros((heads + 2 * kv) * size, np.float32)
        attention.linear[1].weight = normal(hidden, heads * size)
        ffn.linear_0.weight, ffn.linear_0_noact.weight = normal(inner, hidden), normal(inner, hidden)
        ffn.linear_1.weight = normal(hidden, inner)
    model.config.layer_norm_epsilon = c.get("rms_norm_eps", 1e-6)
    model.config.bos_token = model.config.eos_token = model.config.unk_token = "0"
    model.register_vocabulary([str(i) for i in range(c["vocab_size"])])
    model.validate()
    model.optimize(quantization=work.precision)
    return model


longest = max(work.responses)
prompts = [[str(i) for i in rng.integers(5, c["vocab_size"], n)] for n in work.prompts]
with tempfile.TemporaryDirectory() as folder:
    spec().save(folder)
    try:
        generator = ctranslate2.Generator(folder, compute_type=work.precision, intra_threads=work.threads)
    except ValueError as error:
        sys.exit(f"CTranslate2 cannot decode in {work.precision} on this machine: {error}")

    def step():
        begun = time.perf_counter()
        generator.generate_batch(
            prompts,
            max_length=longest,
            min_length=longest,
            sampling_topk=0,
            sampling_temperature=1.0,
            include_prompt_in_result=False,
        )
        return {"gen": time.perf_counter() - begun}

    step()
    times = [step() for _ in range(work.steps)]
work.responses = [longest] * len(work.responses)
work.report(f"CTranslate2 {ctranslate2.__version__}", times)
