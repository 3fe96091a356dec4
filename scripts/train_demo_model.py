"""Train the demo modelcell on a CPU and write it as GGUF.

    python -m venv /tmp/train-venv && /tmp/train-venv/bin/pip install torch==2.13.0 numpy gguf
    /tmp/train-venv/bin/python scripts/train_demo_model.py

The run is seeded. It prints the loss, asks the finished model what it must know, and exits 1 without writing the
file if one answer is wrong. ``docs/demo-model.md`` has the measured figures.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from demo_model import gguf_file, tokenizer
from demo_model.corpus import Corpus
from demo_model.examination import examine
from demo_model.network import Network, Shape

MODEL_FOLDER = Path(__file__).parent.parent / "src" / "swarmesh" / "models" / "demo"
VOCABULARY_SIZE = 1280
TOKENIZER_EXCHANGES = 12_000
ROW_LENGTHS_AND_COUNTS = ((256, 16), (640, 6), (1024, 4))
"""Each step draws one of these: short rows teach first answers, long ones the song after a long conversation."""
WARM_UP_STEPS = 40
PRINT_EVERY_STEPS = 25
GRADIENT_NORM_LIMIT = 1.0
MUON_RATE = 0.02
ADAMW_RATE = 3e-3


def main() -> int:
    """Train, examine, write; the exit code says whether the model knows what it must."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    corpus = Corpus((MODEL_FOLDER / "song.txt").read_text(encoding="ascii").rstrip("\n"))
    tokens = tokenizer.train(corpus.texts(random.Random(options.seed), TOKENIZER_EXCHANGES), VOCABULARY_SIZE)
    network = Network(Shape(vocabulary=len(tokens.tokens)))
    print(f"{network.parameter_count():,} parameters, {len(tokens.encode(corpus.song))} tokens in the song")
    start = time.monotonic()
    train(network, corpus, tokens, options.steps, options.seed)
    print(f"trained in {time.monotonic() - start:.0f} s")
    network.load_state_dict({name: weight.half().float() for name, weight in network.state_dict().items()})
    faults = examine(network, tokens, corpus.song)
    for fault in faults:
        print(f"WRONG: {fault}")
    if faults and not options.write_anyway:
        return 1
    gguf_file.write(options.output, network, tokens)
    print(f"wrote {options.output}, {options.output.stat().st_size:,} bytes")
    return 1 if faults else 0


def train(network: Network, corpus: Corpus, tokens: tokenizer.Tokenizer, steps: int, seed: int) -> None:
    """Run ``steps`` steps with a short warm-up and a cosine down to a fiftieth."""
    rng = random.Random(seed + 1)
    optimizers = _optimizers(network)
    start = time.monotonic()
    losses: list[float] = []
    for step in range(steps):
        loss = _loss(network, *_batch(rng, corpus, tokens))
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM_LIMIT)
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step, steps)
            optimizer.step()
        losses.append(loss.item())
        if (step + 1) % PRINT_EVERY_STEPS == 0:
            mean = sum(losses[-PRINT_EVERY_STEPS:]) / PRINT_EVERY_STEPS
            print(f"step {step + 1:5} loss {mean:.4f} after {time.monotonic() - start:.0f} s", flush=True)


def _optimizers(network: Network) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms, each with its rate."""
    inner = [weight for weight in network.blocks.parameters() if weight.dim() == 2]
    taken = set(map(id, inner))
    rest = [weight for weight in network.parameters() if id(weight) not in taken]
    return [
        (torch.optim.Muon(inner, momentum=0.95, weight_decay=0.01), MUON_RATE),
        (torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0), ADAMW_RATE),
    ]


def _batch(rng: random.Random, corpus: Corpus, tokens: tokenizer.Tokenizer) -> tuple[Tensor, Tensor]:
    length, count = rng.choice(ROW_LENGTHS_AND_COUNTS)
    rows = [corpus.row(rng, tokens, length) for _ in range(count)]
    return torch.tensor([row.ids for row in rows]), torch.tensor([row.learned for row in rows])


def _loss(network: Network, ids: Tensor, learned: Tensor) -> Tensor:
    logits = network(ids[:, :-1])
    wanted = learned[:, 1:]
    return functional.cross_entropy(logits[wanted], ids[:, 1:][wanted])


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=MODEL_FOLDER / "demo.gguf")
    parser.add_argument("--write-anyway", action="store_true", help="write the file even if an answer is wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
