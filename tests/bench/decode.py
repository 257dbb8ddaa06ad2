"""How fast guided decoding is on SmolLM2, against baselines written here plainly, as public code does it.

    make bench          (or: python tests/bench/decode.py [name …] for the rows whose names hold one of the words)

Ratios come from alternating runs of both sides, so that what else the machine does falls on both; each is the median of
the pairs, its spread the quartiles.
"""

import copy
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from smollm2 import model_folder  # beside this file
from transformers import DynamicCache
from transformers.generation.logits_process import TopPLogitsWarper

from stages.decode.chunk import ChunkedBatch, Chunks
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine.batch import Batch
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.learn.values.scalar_head import ValueHead, fingerprint

PREFIX, ROWS = 128, 8
REVIEW = (
    "It begins with a ferry in the fog and a woman who will not say where she is going, and for an hour that is "
    "enough. The director trusts faces, long takes and the noise of water; the plot, when it comes, is smaller than "
    "the mood that it ends. Still, the last scene is worth the crossing, and the boy who plays the pilot is a find."
)
Row = dict[str, Any]


def value_head(trunk: Path, folder: Path) -> Path:
    """An mlp head of random weights on layer 20."""
    head = ValueHead(size=576, rewards=("proxy",), layer=20, head="mlp", trunk=fingerprint(trunk))
    torch.nn.init.normal_(head.last.weight, std=0.05)
    folder.mkdir(exist_ok=True)
    head.save(folder)
    return folder


def tuned(source: Path, folder: Path, layers: Sequence[int]) -> Path:
    """A second model of the same size: the first with other weights in `layers`."""
    shutil.copytree(source, folder)
    weights = load_file(source / "model.safetensors")
    for name in weights:
        if any(f".layers.{layer}.mlp." in name for layer in layers):
            weights[name] = weights[name] * 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def started(lm: LoadedLM, sampling: Sampling, guide: ScalarValue | None, ids: list[list[int]]) -> Batch[Response]:
    """A batch with a row of each prompt, before the first step; limits are high enough for what is timed."""
    lanes = Lanes(lm)
    engine = Engine(lanes, Draw(sampling, 0, len(ids)), None if guide is None else guide.open(lanes, sampling))
    lanes.encode([(str(index), one) for index, one in enumerate(ids)], None, sampling.max_new_tokens)
    batch = engine.open(len(ids))
    batch.enter([Response(prompt, 0) for prompt in range(len(ids))])
    return batch


def tokens(count: int, length: int) -> list[list[int]]:
    return torch.randint(100, 40000, (count, length), generator=torch.Generator().manual_seed(0)).tolist()


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of both, alternating; the first pair warms up."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(pairs + 1)][1:]
    return [a for a, _ in times], [b for _, b in times]


def row(name: str, values: list[float], unit: str, bar: float | None, at_least: bool = False) -> Row:
    """A row of latest.json; prints median and quartiles."""
    middle = statistics.median(values)
    low, high = (min(values), max(values)) if len(values) < 4 else statistics.quantiles(values, n=4)[::2]
    holds = True if bar is None else middle >= bar if at_least else middle <= bar
    asked = "" if bar is None else f"   ({'≥' if at_least else '≤'} {bar}: {'yes' if holds else 'NO'})"
    print(f"{name:<66} {middle:>9.3g} {unit:<9} [{low:.3g} – {high:.3g}]{asked}", flush=True)
    return {"name": name, "value": middle, "unit": unit, "bar": bar, "holds": holds}


def ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


# the baselines


class Plain:
    """The model as it comes, with transformers' own cache over `ROWS` rows of `PREFIX` tokens."""

    def __init__(self, policy: LoadedLM) -> None:
        self.policy, self.model = policy, policy.model
        self.ids = torch.tensor(tokens(ROWS, PREFIX))
        self.cache = DynamicCache()
        self.model(input_ids=self.ids, past_key_values=self.cache, use_cache=True)

    def candidates(self, k: int) -> None:
        """One masked forward of k candidates a row, logits of one: the least any implementation can do."""
        size = PREFIX + k
        mask = torch.full((k, k), torch.finfo(self.policy.dtype).min, dtype=self.policy.dtype).fill_diagonal_(0)
        mask = torch.cat([torch.zeros(k, PREFIX, dtype=self.policy.dtype), mask], dim=1).expand(ROWS, 1, k, size)
        out = self.model.model(
            input_ids=self.ids[:, :k],
            attention_mask=mask,
            position_ids=torch.full((ROWS, k), PREFIX),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.model.lm_head(out.last_hidden_state[:, 0])
        self.cache.crop(-k)

    def token(self) -> None:
        """The next token of every row."""
        self.model(input_ids=self.ids[:, :1], past_key_values=self.cache, use_cache=True)
        self.cache.crop(-1)

    def replicated(self, k: int) -> None:
        """The base token; its cache replicated k times, a candidate a row; top-k, softmax and the draw."""
        self.token()
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(k)
        out = self.model(
            input_ids=self.ids[:, :k].reshape(-1, 1), past_key_values=cache, use_cache=True, output_hidden_states=True
        )
        self._choose(out.hidden_states[20][:, -1].view(ROWS, k, -1), out.logits[:ROWS, -1], k)

    def without_cache(self, k: int) -> None:
        """One candidate after the other, the whole prefix each time (the official decoder's work)."""
        out: Any = None
        states = []
        for candidate in range(k):
            ids = torch.cat([self.ids, self.ids[:, candidate : candidate + 1]], dim=1)
            out = self.model(input_ids=ids, use_cache=False, output_hidden_states=True)
            states.append(out.hidden_states[20][:, -1])
        self._choose(torch.stack(states, 1), out.logits[:, -1], k)

    def _choose(self, states: torch.Tensor, logits: torch.Tensor, k: int) -> None:
        values = states.float().mean(dim=2)
        top = logits.float().topk(k, dim=1)
        torch.multinomial(torch.softmax(top.values + values - values.mean(dim=1, keepdim=True), dim=1), 1)


# the rows


def vas(policy: LoadedLM, head: Path, separate: ScalarValue, top: ScalarValue) -> Iterator[Row]:
    sampling = Sampling(temperature=0.9, top_p=0.9, max_new_tokens=400)
    plain = Plain(policy)
    for k in (10, 20):
        batch = started(policy, sampling, ScalarValue(head, beta=4.0, k=k), tokens(ROWS, PREFIX))
        ours, bare = paired(batch.step, lambda k=k: plain.candidates(k), 12)
        yield row(f"VAS step ÷ bare candidate forward, value on the trunk, k = {k}", ratios(ours, bare), "×", 1.25)
        batch = started(policy, sampling, replace(separate, k=k), tokens(ROWS, PREFIX))
        ours, bare = paired(batch.step, lambda k=k: (plain.token(), plain.candidates(k)), 12)
        yield row(f"VAS step ÷ (base token + candidates), separate value, k = {k}", ratios(ours, bare), "×", 1.2)
        batch = started(policy, sampling, replace(top, k=k), tokens(ROWS, PREFIX))
        ours, bare = paired(batch.step, lambda k=k: (plain.token(), plain.candidates(k)), 12)
        name = f"VAS step ÷ (base token + candidates), four layers tuned below the value's state, k = {k}"
        yield row(name, ratios(ours, bare), "×", None)
    batch = started(policy, sampling, ScalarValue(head, beta=4.0, k=10), tokens(ROWS, PREFIX))
    theirs, ours = paired(lambda: plain.replicated(10), batch.step, 6)
    yield row("replicating the cache k = 10 times ÷ VAS step", ratios(theirs, ours), "×", 2.0, at_least=True)
    theirs, ours = paired(lambda: plain.without_cache(10), batch.step, 2)
    yield row(
        "one candidate at a time without cache ÷ VAS step, k = 10", ratios(theirs, ours), "×", 30.0, at_least=True
    )


def throughput(policy: LoadedLM, head: Path) -> Iterator[Row]:
    sampling = Sampling(temperature=0.9, top_p=0.9, max_new_tokens=400)
    for size in (1, 4, 16, 64):
        batch = started(policy, sampling, None, tokens(size, PREFIX))
        times = [seconds(batch.step) for _ in range(9)][1:]
        yield row(f"base tokens per second, B = {size}", [size / one for one in times], "tokens/s", None)
    ids: Any = torch.tensor(policy.tokenizer(REVIEW)["input_ids"])[None]
    logits, warper = policy.model(ids).logits[0], TopPLogitsWarper(0.9)  # one row a position of running text

    def warped() -> torch.Tensor:  # as `generate` does it: the whole vocabulary is sorted
        return warper(ids, logits.float() / 0.9).softmax(dim=1)

    ours, theirs = paired(lambda: Distribution.of(logits, sampling), warped, 7)
    yield row(f"transformers' top-p ÷ ours, B = {len(logits)}", ratios(theirs, ours), "×", 3.0, at_least=True)
    for k in (1, 5, 10, 20, 50):
        batch = started(policy, sampling, ScalarValue(head, beta=4.0, k=k), tokens(ROWS, PREFIX))
        times = [seconds(batch.step) for _ in range(7)][1:]
        yield row(f"VAS tokens per second, B = {ROWS}, k = {k}", [ROWS / one for one in times], "tokens/s", None)


Run = Callable[[list[tuple[str, list[int]]]], Any]
"""Decodes one response to each prompt."""


def searched(lanes: Lanes, scorer: ExplicitScorer, rows: int, limit: int, guide: ImplicitValue | None = None) -> Run:
    """W = 4, K = 4, L = 5 at temperature 0.7."""
    sampling = Sampling(temperature=0.7, max_new_tokens=limit)
    terms = None if guide is None else guide.open(lanes, sampling)
    chunks = Chunks(scorer.open(lanes), beams=4, successors=4, chunk=5)
    engine = Engine(lanes, Draw(sampling, 0, rows), terms)
    return lambda prompts: engine.run(prompts, 1, schedule=chunks)


def search_run(lm: LoadedLM, other: CausalLM, head: Path, rows: int, limit: int) -> Run:
    """IVG's search by the explicit value of a model that only scores."""
    return searched(Lanes(lm), ExplicitScorer(head, other), rows, limit)


def ivg_run(lm: LoadedLM, tuned: CausalLM, head: Path, rows: int, limit: int) -> Run:
    """IVG as conf/method/ivg.yaml has it: a tuned model steps beside the policy, the value reads the policy's trunk."""
    return searched(Lanes(lm), ExplicitScorer(head), rows, limit, ImplicitValue(tuned))


@contextmanager
def watched(owner: type, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Inside, calls of a method go through `around(method, self, *arguments)`."""
    method = getattr(owner, name)
    setattr(owner, name, lambda self, *given: around(method, self, *given))
    try:
        yield
    finally:
        setattr(owner, name, method)


def reencoded_chunk(policy: LoadedLM, beams: torch.Tensor) -> None:
    """A chunk as public code does it: all beams through the tokenizer, a new prefill, 5 tokens, and the scorer reads
    everything again."""
    texts = [policy.tokenizer.decode(one) for one in beams.tolist()]
    [policy.tokenizer(text) for text in texts]
    cache = DynamicCache()
    out = policy.model(input_ids=beams, past_key_values=cache, use_cache=True, logits_to_keep=1)
    ids = beams
    for _ in range(5):
        token = torch.multinomial(torch.softmax(out.logits[:, -1].float() / 0.7, dim=1), 1)
        ids = torch.cat([ids, token], dim=1)
        out = policy.model(input_ids=token, past_key_values=cache, use_cache=True)
    policy.model(input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1)


def ivg(policy: LoadedLM, other: CausalLM, other_head: Path, head: Path) -> Iterator[Row]:
    policy.eos = -1  # no beam ends: the same work every chunk
    read: list[int] = []
    drawn: list[int] = []

    def scored(score: Any, chunk: Any, rows: Any) -> None:
        before = sum(one.tokens for one in rows)
        score(chunk, rows)
        read.append(sum(one.tokens for one in rows) - before)

    def appended(append: Any, batch: Any, choice: Any) -> None:
        drawn.append(len(choice.token))
        append(batch, choice)

    with watched(ChunkedBatch, "_score", scored), watched(Batch, "_append", appended):
        search_run(policy, other, other_head, 16, 20)([("a", tokens(1, 64)[0])])
    yield row("IVG scorer tokens per generated token, W = K = 4, L = 5", [sum(read) / sum(drawn)], "tokens", 1.1)

    beams = torch.tensor(tokens(16, 464))  # prompt 400 and half of 128 new tokens: what is held in the middle
    chunks: list[float] = []
    theirs: list[float] = []
    mark = [0.0]

    def compared(compare: Any, chunk: Any, rows: Any) -> Any:
        done = compare(chunk, rows)
        chunks.append(time.perf_counter() - mark[0])
        if len(chunks) in (2, 3, 4):
            theirs.append(seconds(lambda: reencoded_chunk(policy, beams)))
        mark[0] = time.perf_counter()
        return done

    run = search_run(policy, other, other_head, 16, 25)
    mark[0] = time.perf_counter()
    with watched(ChunkedBatch, "_compare", compared):
        run([("a", tokens(1, 464)[0])])
    yield row(
        "decode-and-re-encode ÷ IVG chunk, prompt 400, token 64 of 128",
        ratios(theirs, chunks[1:4]),
        "×",
        5.0,
        at_least=True,
    )

    many = [(str(index), ids) for index, ids in enumerate(tokens(8, 64))]
    speeds = []
    for _ in range(2):
        runs = [ivg_run(policy, other, head, rows, 20) for rows in (16, 128)]
        alone, together = (seconds(lambda run=run: run(many)) for run in runs)
        speeds.append(alone / together)
    yield row("IVG, 8 prompts of 64 tokens together ÷ one at a time, 20 new tokens", speeds, "×", 2.0, at_least=True)


def peak(folder: Path, head: Path) -> Iterator[Row]:
    """In a process of its own: peak resident size less that after the imports, 128 rows, prefix 128, 32 new tokens."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", str(folder), str(head)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    yield row("peak memory ÷ (weights + caches), 128 rows", [found["peak"] / found["arithmetic"]], "×", 1.3)


def resident(what: str) -> int:
    """Bytes of this process that are in memory: now (`VmRSS`), or at most since `forget_peak` (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def forget_peak() -> None:
    """Sets this process's peak to what it holds now. (`ru_maxrss` cannot be: it begins at the parent's peak.)"""
    Path("/proc/self/clear_refs").write_text("5")


def measure_peak(folder: Path, head: Path) -> None:
    forget_peak()
    before = resident("VmRSS")
    policy = CausalLM(folder, "bfloat16").load("cpu")
    run = searched(Lanes(policy), ExplicitScorer(head), 128, 32)
    run([(str(index), ids) for index, ids in enumerate(tokens(8, PREFIX))])
    config = policy.config
    weights = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    per_slot = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
    arithmetic = weights + per_slot * 128 * (PREFIX + 32)
    print(json.dumps({"peak": resident("VmHWM") - before, "arithmetic": arithmetic}))


def rows(only: list[str] | None = None) -> list[Row]:
    """All rows (of the parts named); prints each as it is there."""
    folder = model_folder()
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        twin = tuned(folder, Path(scratch) / "twin", [0])  # shares nothing with the policy
        top = tuned(folder, Path(scratch) / "top", range(16, 20))
        head, other_head = value_head(folder, Path(scratch) / "head"), value_head(twin, Path(scratch) / "other")
        top_head = value_head(top, Path(scratch) / "top_head")
        other = CausalLM(twin, "bfloat16")
        separate, adapted = (
            ScalarValue(one, beta=4.0, model=CausalLM(model, "bfloat16"))
            for one, model in ((other_head, twin), (top_head, top))
        )
        parts: dict[str, Callable[[LoadedLM], Iterator[Row]]] = {
            "peak": lambda policy: peak(folder, head),
            "vas": lambda policy: vas(policy, head, separate, adapted),
            "ivg": lambda policy: ivg(policy, other, other_head, head),
            "throughput": lambda policy: throughput(policy, head),
        }
        for name, part in parts.items():
            if not only or name in only:
                found += list(part(CausalLM(folder, "bfloat16").load("cpu")))
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        rows(sys.argv[1:])
