"""llama.cpp through xllamacpp: reads lines `PROMPT ANSWER` (numbers of tokens), runs them, and
prints milliseconds of the prompt, milliseconds of the answer, and CPU seconds of both."""

import json
import sys
import time

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 2048
params.n_parallel = 1
params.cpuparams.n_threads = int(sys.argv[2])
params.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(params)
print("ready", flush=True)
for line in sys.stdin:
    prompt, answer = map(int, line.split())
    tokens = [i * 7919 % 40000 + 100 for i in range(prompt)]
    cpu = time.process_time()
    reply = server.handle_completions(
        {
            "prompt": tokens,
            "n_predict": answer,
            "temperature": 0.0,
            "cache_prompt": False,
            "ignore_eos": True,
        }
    )
    cpu = time.process_time() - cpu
    reply = reply if isinstance(reply, dict) else json.loads(reply)
    timings = reply["timings"]
    print(timings["prompt_ms"], timings["predicted_ms"], cpu, flush=True)
