"""Loads exported folders with transformers, as they are, and prints their contents and answers as JSON.

Arguments: the questions, {"ids": [[id, ..], ..], "text": ".."} as JSON, and the folders.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer


def name(dtype):
    return str(dtype).removeprefix("torch.")


def read(folder, ids, text):
    config = json.loads((folder / "config.json").read_text())
    [architecture] = config["architectures"]
    actor = architecture.endswith("ForCausalLM")
    loader = AutoModelForCausalLM if actor else AutoModelForTokenClassification
    model, loading = loader.from_pretrained(folder, output_loading_info=True)
    tensors = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
    found = {
        "trouble": {what: sorted(map(str, names)) for what, names in loading.items() if names},
        "class": [architecture, type(model).__name__],
        "dtypes": {
            "config": config.get("dtype", config.get("torch_dtype")),
            "files": sorted({name(tensor.dtype) for tensor in tensors}),
            "model": name(model.dtype),
        },
    }
    with torch.no_grad():
        found["logits"] = model.float()(torch.tensor(ids)).logits.tolist()
    if actor:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found["text"] = tokenizer(text)["input_ids"]
        found["eos"] = tokenizer.eos_token_id
    return found


questions, *folders = sys.argv[1:]
print(json.dumps([read(pathlib.Path(folder), **json.loads(questions)) for folder in folders]))
