"""Writes tests/golden/sae: small autoencoders in the layouts that src/sae/files.rs reads, and what they make of inputs.

Those of sae_lens are saved and evaluated by sae_lens itself; those of Llama Scope, whose library is not packaged, by the
formulas of its model card in a few lines of PyTorch here.

    pip install sae-lens==6.54.12
    python scripts/golden_sae.py
"""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

OUT = Path(__file__).parent.parent / "tests" / "golden" / "sae"
HIDDEN, FEATURES, TOKENS = 6, 10, 5


def rounded(tensor):
    return [round(value, 7) for value in tensor.flatten().tolist()]


def filled(shape, scale=1.0):
    return torch.randn(shape) * scale


def lens(name, cls, config, x, expected):
    metadata = SAEMetadata(model_name="tiny", hook_name="blocks.3.hook_resid_post")
    sae = cls(config(d_in=HIDDEN, d_sae=FEATURES, metadata=metadata))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(filled(parameter.shape, 0.7))
    sae.save_model(OUT / name)
    active = sae.encode(x)
    expected[name] = {"active": rounded(active), "decoded": rounded(sae.decode(active))}


def scope(name, config, norms, x, expected):
    """f = J(E (c x) + e), x' = (D f + d) / c, where c is the root of H over the mean norm, and J is z where z, times the
    norm of D's column if the settings say so, is above exp(log_jumprelu_threshold)."""
    tensors = {
        "encoder.weight": filled((FEATURES, HIDDEN)),
        "encoder.bias": filled(FEATURES, 0.3),
        "decoder.weight": filled((HIDDEN, FEATURES)),
        "decoder.bias": filled(HIDDEN, 0.3),
        "log_jumprelu_threshold": filled(FEATURES, 0.5),
    } | {f"dataset_average_activation_norm.{hook}": torch.tensor(norm) for hook, norm in norms.items()}
    (OUT / name).mkdir(parents=True)
    if config is not None:
        (OUT / name / "config.json").write_text(json.dumps(config))
    save_file(tensors, OUT / name / "sae_weights.safetensors")
    factor = math.sqrt(HIDDEN) / next(iter(norms.values())) if norms else 1.0
    before = x * factor @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    columns = tensors["decoder.weight"].norm(dim=0)
    by_norm = bool(config and config.get("sparsity_include_decoder_norm"))
    score = before * columns if by_norm else before
    active = before * (score > tensors["log_jumprelu_threshold"].exp())
    decoded = (active @ tensors["decoder.weight"].T + tensors["decoder.bias"]) / factor
    # With norms, activations are compared in units of rows of norm 1.
    expected[name] = {"active": rounded(active * columns if by_norm else active), "decoded": rounded(decoded)}


def main():
    torch.manual_seed(26)
    shutil.rmtree(OUT, ignore_errors=True)
    x = filled((TOKENS, HIDDEN), 2.0)
    expected = {}
    lens("standard", StandardSAE, StandardSAEConfig, x, expected)
    lens("jumprelu", JumpReLUSAE, JumpReLUSAEConfig, x, expected)
    lens("topk", TopKSAE, lambda **given: TopKSAEConfig(k=3, **given), x, expected)
    lens("topk_by_norm", TopKSAE,
         lambda **given: TopKSAEConfig(k=3, rescale_acts_by_decoder_norm=True, **given), x, expected)
    lens("norm", StandardSAE,
         lambda **given: StandardSAEConfig(normalize_activations="constant_norm_rescale", **given), x, expected)
    lens("layer_norm", StandardSAE,
         lambda **given: StandardSAEConfig(normalize_activations="layer_norm", apply_b_dec_to_input=False, **given), x,
         expected)
    hook = "blocks.3.hook_resid_post"
    scope("scope", None, {hook: 11.5}, x, expected)
    config = {"act_fn": "jumprelu", "norm_activation": "dataset-wise", "hook_point_in": hook, "hook_point_out": hook,
              "sparsity_include_decoder_norm": True}
    scope("scope_by_norm", config, {hook: 3.25}, x, expected)
    entries = [f'"{name}": {json.dumps(value)}' for name, value in {"x": rounded(x), **expected}.items()]
    (OUT / "expected.json").write_text("{\n" + ",\n".join(entries) + "\n}\n")
    for file in OUT.rglob("*.safetensors"):
        file.chmod(0o644)


main()
