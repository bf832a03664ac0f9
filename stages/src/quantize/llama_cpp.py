"""llama.cpp through xllamacpp: for each prompt of tokens the likeliest next tokens and their
log-probabilities, as JSON; nothing where the likeliest is a
part of a character."""

import json
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 128
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.warmup = False
server = xllamacpp.Server(params)
out = []
for prompt in json.loads(sys.argv[2]):
    asked = {"prompt": prompt, "n_predict": 1, "temperature": 0.0, "cache_prompt": False, "n_probs": 8}
    reply = server.handle_completions(asked)
    reply = reply if isinstance(reply, dict) else json.loads(reply)
    logprobs = reply["choices"][0]["logprobs"]
    # None where the text does not end with a whole character.
    top = logprobs["content"][0]["top_logprobs"] if logprobs else []
    out.append([[token["id"], token["logprob"]] for token in top])
print("reply " + json.dumps(out))
