"""Loads what `pairs` wrote as TRL and Axolotl do. Usage: peers.py PAIRS.JSONL

TRL trains one step of DPO on a random model: at the start the policy is its reference, so that the
loss is ln 2. Axolotl turns a row into its own, by its own code, if it is installed (`pip install
--no-deps axolotl` is enough); else this is said and left out.
"""

import importlib.util
import math
import sys
import tempfile

from datasets import load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

path = sys.argv[1]
data = load_dataset("json", data_files=path, split="train")
first = data[0]
assert all(isinstance(first[key], str) and first[key] for key in ("prompt", "chosen", "rejected"))

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
vocab = {letter: i + 1 for i, letter in enumerate(letters)} | {"<end>": 0}
bytes_ = Tokenizer(models.BPE(vocab=vocab, merges=[]))
bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytes_.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<end>", pad_token="<end>")
shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocab), max_position_embeddings=4096, **shape))
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(f"{folder}/model")  # the reference is read from there
    model = LlamaForCausalLM.from_pretrained(f"{folder}/model")
    settings = DPOConfig(folder, max_steps=1, per_device_train_batch_size=2, report_to=[],
                         use_cpu=True, bf16=False, save_strategy="no")
    trainer = DPOTrainer(model, args=settings, train_dataset=data.select(range(min(8, len(data)))),
                         processing_class=tokenizer)
    loss = trainer.train().training_loss
assert abs(loss - math.log(2)) < 1e-3, loss
print("TRL: loss", loss)


def module(package, inner):
    """A module of a package by its file, without what the package itself imports."""
    found = importlib.util.find_spec(package)
    if found is None:
        print(f"{package}: not installed, left out")
        return None
    spec = importlib.util.spec_from_file_location(inner, f"{found.submodule_search_locations[0]}/{inner}")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


if axolotl := module("axolotl", "prompt_strategies/dpo/user_defined.py"):
    row = axolotl.default({"datasets": [{"type": {"field_prompt": "prompt"}}]})(dict(first))
    assert all(row[key] == first[key] for key in ("prompt", "chosen", "rejected"))
    print("Axolotl: the same row")
