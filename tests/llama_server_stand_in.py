"""Stands in for a llama-server binary: checks how it was called, then serves with llama.cpp from the wheel."""

import argparse
import os
import sys

if "--list-devices" in sys.argv:
    sys.stdout.write("Available devices:\n")
    sys.exit(0)

parser = argparse.ArgumentParser()
for name in ("--model", "--alias", "--host", "--pooling"):
    parser.add_argument(name, required=True)
for name in ("--parallel", "--ctx-size", "--n-gpu-layers", "--ubatch-size", "--batch-size"):
    parser.add_argument(name, type=int, required=True)
for name in ("--slots", "--embeddings"):
    parser.add_argument(name, action="store_true", required=True)
parser.add_argument("--threads", type=int, default=1)
asked = parser.parse_args()
assert asked.host.endswith(".sock"), "llama-server listens on a unix socket when its host ends so"
assert os.environ["LLAMA_API_KEY"] not in sys.argv, "no key in argv"
assert os.environ["LLAMA_ARG_CACHE_RAM"] == "0"

import xllamacpp  # noqa: E402 - after the checks, so that they fail fast

params = xllamacpp.CommonParams()
params.model.path = asked.model
params.model_alias = {asked.alias}
params.hostnames = [asked.host]
params.n_parallel, params.n_ctx = asked.parallel, asked.ctx_size
params.n_gpu_layers = asked.n_gpu_layers
params.api_keys = [os.environ["LLAMA_API_KEY"]]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
params.endpoint_slots = asked.slots
params.embedding = asked.embeddings
params.pooling_type = {"mean": 1}[asked.pooling]
params.n_ubatch, params.n_batch = asked.ubatch_size, asked.batch_size
params.verbosity = 1
params.ui = False
server = xllamacpp.Server(params)
while True:
    import signal

    signal.pause()
