"""LoRA steps of PyTorch and PEFT, for the benchmark beside: MODEL BATCH LENGTH STEPS [RANK].

Prints the seconds of each step and the peak memory of the process in MiB, as JSON.
"""
import json
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

model, batch, length, steps = sys.argv[1], *map(int, sys.argv[2:5])
rank = int(sys.argv[5]) if len(sys.argv) > 5 else 16
torch.set_num_threads(2)
torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
net = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
net.train()
optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-4)
seconds, cpu = [], []
for _ in range(steps):
    tokens = torch.randint(0, base.config.vocab_size, (batch, length))
    start, began = time.perf_counter(), time.process_time()
    loss = net(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
    cpu.append(time.process_time() - began)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak}))
