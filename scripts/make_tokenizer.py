#!/usr/bin/env python3
"""Writes the quickstart's tokenizer and model shape to checkpoints/countdown-base (or to the folder named).

Nothing is trained: the 544 entries are listed here. Byte-level BPE, so that any text can be encoded; numbers below 200,
the words of our solver's traces and the tags are single tokens. Needs only Python's standard library.
"""

import json
import pathlib
import sys

END = "<|endoftext|>"
TAGS = ["think", "answer", "cast_of_characters", *(f"persona{i}" for i in range(1, 5)), "conversation",
        *(f"think{i}" for i in range(1, 5)), "group_solution"]

# Digits in groups of one to three (as Llama-3 groups them), words with the space before them, punctuation, white space.
# A verdict includes the end of its line, so that a line of a trace is twelve tokens.
PATTERN = r" (?:no|yes)\n| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"

# Every word of the traces and the compact prompt. `ignore_merges` looks entries up whole, so words need no merges.
WORDS = [" no\n", " yes\n", "Numbers", "Target",
         *"Agreed Let No Not Right That Try Wait What Why Yes asks doubts likes looks starts".split(),
         *(" " + w for w in "I about agree all another at begin better but differences disagree do each end for have here "
                            "if is it look misses no not numbers one products questions see so step stop sums that the "
                            "this try us used we what would yes yet".split())]
PAIRS = ["er", "in", "th", "re", "on", "an", "es"]  # for all other words


def byte_alphabet():
    """Byte -> the printable character that represents it in a byte-level vocabulary (GPT-2's table)."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in kept]
    return {b: chr(b) for b in kept} | {b: chr(256 + i) for i, b in enumerate(moved)}


def tokenizer():
    alphabet = byte_alphabet()
    entries = [alphabet[b] for b in range(256)]
    # 11 before 10: in `110`, the first two digits must merge first, as in all of 100..199.
    merges = [("1", "1")] + [(str(n)[0], str(n)[1]) for n in range(10, 100) if n != 11]
    merges += [(str(n)[:2], str(n)[2]) for n in range(100, 200)] + [tuple(p) for p in PAIRS]
    entries += [a + b for a, b in merges]
    entries += ["".join(alphabet[b] for b in word.encode()) for word in WORDS]
    added = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")] + [END]
    assert len(set(entries + added)) == len(entries) + len(added) == 544, len(entries) + len(added)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(entries) + i, "content": text, **flags, "special": text == END}
                         for i, text in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {text: i for i, text in enumerate(entries)}, "merges": [list(m) for m in merges]},
    }


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "clean_up_tokenization_spaces": False,
    "add_bos_token": False, "bos_token": None, "eos_token": END, "pad_token": END,
}
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 544, "hidden_size": 128,
    "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "max_position_embeddings": 512, "initializer_range": 0.02, "use_sliding_window": False, "eos_token_id": 543,
    "torch_dtype": "float32",
}


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "checkpoints" / "countdown-base"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in [("tokenizer", tokenizer()), ("tokenizer_config", TOKENIZER_CONFIG), ("config", CONFIG)]:
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
