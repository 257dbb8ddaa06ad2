"""What training through the trainer costs over a bare loop of forward, backward and step on the same model and batches.

    python tests/bench/learn.py          (TILT_BENCH_MODEL: a folder of SmolLM2; else it is converted once)

Both sides do the same optimiser steps on the same sequences with LoRA on the top ten layers; runs alternate, so that
what else the machine does falls on both. The ratio is the median of the pairs.
"""

import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from smollm2 import model_folder  # beside this file

from stages.engine.language_model import load_model
from stages.learn.loop.trainer import fit
from stages.learn.lora import adapted
from stages.learn.policies.sft import _FineTuning
from stages.learn.responses import Exchange, response_nats
from stages.runtime import Runtime

STEPS, BATCH, PAIRS = 6, 8, 5


def bare(model: Any, steps: list[list[Exchange]]) -> float:
    """Seconds of a plain loop."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    begun = time.perf_counter()
    for batch in steps:
        nats, tokens = response_nats(model, batch)
        (nats / tokens).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begun


def ours(model: Any, steps: list[list[Exchange]]) -> float:
    """Seconds of `fit`, all that it sets up included."""
    sequences = [exchange for batch in steps for exchange in batch]
    indices = [list(range(i, i + BATCH)) for i in range(0, len(sequences), BATCH)]
    begun = time.perf_counter()
    fit(_FineTuning(model, sequences, 1e-4), indices, Runtime())
    return time.perf_counter() - begun


def rows() -> list[dict[str, Any]]:
    """{name, value, unit, bar, holds} of every figure; `holds` is null where there is no bar."""
    model = load_model(model_folder(), dtype="bfloat16", device="cpu")
    adapted(model, rank=16, alpha=16, top_layers=10)
    generator = np.random.default_rng(0)
    made = [generator.integers(3, 40_000, 64).tolist() for _ in range(STEPS * BATCH)]
    steps = [[Exchange(s[:16], s[16:]) for s in made[i : i + BATCH]] for i in range(0, len(made), BATCH)]
    bare(model, steps[:1]), ours(model, steps[:1])
    ratios, rates = [], []
    for pair in range(PAIRS):
        sides = [bare, ours] if pair % 2 else [ours, bare]
        seconds = {side: side(model, steps) for side in sides}
        ratios.append(seconds[bare] / seconds[ours])
        rates.append(STEPS * BATCH * 64 / seconds[ours])
    ratio = statistics.median(ratios)
    return [
        {
            "name": "training tokens/s ÷ bare loop (SmolLM2, LoRA on 10 layers, 8 × 64 tokens)",
            "value": round(ratio, 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "unit": "×",
            "bar": 0.85,
            "holds": ratio >= 0.85,
        },
        {
            "name": "training tokens/s (SmolLM2, LoRA on 10 layers, 8 × 64 tokens)",
            "value": round(statistics.median(rates), 1),
            "unit": "tokens/s",
            "bar": None,
            "holds": None,
        },
    ]


if __name__ == "__main__":
    found = rows()
    print(json.dumps(found, indent=1, ensure_ascii=False))
    sys.exit(0 if all(row["holds"] is not False for row in found) else 1)
