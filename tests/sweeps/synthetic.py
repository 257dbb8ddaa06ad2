"""Score files of invented methods, built in code: a base, Best-of-N, and a steered method that ends over-optimised."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stages import records
from stages.records import Score, Verdict
from stages.reward import write_uncounted
from stages.training_cost import TrainingCost, write_costs

WORDS = "a quiet film that earns its ending and never once raises its voice above the sea".split()  # noqa: SIM905

POINTS = [
    # method, settings, (mean proxy, mean gold, kl, kind)
    ("base", {}, (0.0, 0.9, 0.0, "exact")),
    ("bon", {"n": 4}, (0.9, 1.9, math.log(4) - 3 / 4, "bound")),
    ("bon", {"n": 16}, (1.6, 2.7, math.log(16) - 15 / 16, "bound")),
    ("vas", {"beta": 1.0, "k": 20}, (0.9, 1.8, 0.8, "exact")),
    ("vas", {"beta": 2.0, "k": 20}, (1.7, 2.9, 2.9, "exact")),
    ("vas", {"beta": 4.0, "k": 20}, (2.9, 4.0, 9.0, "exact")),
    ("vas", {"beta": 8.0, "k": 20}, (3.0, 3.4, 24.0, "exact")),
]


def write_point(
    folder: Path,
    *,
    method: str,
    settings: dict[str, Any],
    proxy: dict[str, list[float]],
    gold: dict[str, list[float]] | None = None,
    kl: float = 0.0,
    kl_kind: str = "exact",
    text: str = " a fine film.",
    seconds: float = 0.5,
) -> dict[str, Any]:
    """One point whose rewards are given: part → one reward a prompt, one sample each. Returns its entry for Compare."""
    scores = []
    for part, values in proxy.items():
        for row, value in enumerate(values):
            scores.append(
                Score(
                    prompt_id=f"{part}-{row:03d}",
                    part=part,
                    sample=0,
                    method=method,
                    settings="{}",
                    prompt=f"Film review: number {row}",
                    text=text,
                    rewards={"proxy": value, "gold": (gold or proxy)[part][row]},
                    kl=kl,
                    kl_kind=kl_kind,
                    logprob=-20.0,
                    base_logprob=-22.0,
                    length=10,
                    finished=row % 4 != 0,
                    distinct_2=0.95,
                    repetition=0.02,
                    tokens=40,
                    flops=1e10,
                    seconds=seconds,
                )
            )
    folder.mkdir(parents=True)
    records.write(folder / "scores.parquet", Score, scores)
    return {"label": f"{method} {settings}", "method": method, "settings": settings, "score": folder}


ROLLOUTS = {"rollout_flops": 3.1e13, "rollout_tokens": 90112.0}
TRAINED = {
    "vas": [TrainingCost(model="Value model", train_flops=2.2e13, train_tokens=90112.0, **ROLLOUTS)],
    "dpo": [TrainingCost(model="DPO policy", train_flops=1.4e14, train_tokens=215040.0, **ROLLOUTS)],
    "ppo": [
        TrainingCost(
            model="PPO policy", train_flops=1.9e14, train_tokens=240000.0, rollout_flops=8.0e12, rollout_tokens=20480.0
        )
    ],
}
TRAINED["ivg"] = [
    *TRAINED["vas"],
    TrainingCost(model="Fine-tuned policy", train_flops=6.0e13, train_tokens=88000.0, **ROLLOUTS),
]


def with_costs(entries: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """The entries with a decode payload that says what their models cost to train."""
    made = []
    for number, entry in enumerate(entries):
        folder = root / f"{number}"
        folder.mkdir(parents=True)
        write_costs(folder, TRAINED.get(entry["method"], []))
        write_uncounted(folder, None)
        made.append(entry | {"decode": folder})
    return made


def write_foresight(folder: Path) -> Path:
    """What stage `foresight` writes: the value foresees better in the middle, not at the end."""
    folder.mkdir(parents=True)
    figures = {  # place → (value, prefix reward, difference), each mean, low, high
        "start": ((0.46, 0.31, 0.59), (0.21, 0.04, 0.37), (0.25, 0.07, 0.42)),
        "middle": ((0.66, 0.54, 0.75), (0.51, 0.37, 0.63), (0.15, 0.05, 0.26)),
        "end": ((0.87, 0.80, 0.92), (0.90, 0.85, 0.94), (-0.03, -0.08, 0.02)),
    }
    names = ("value", "prefix_reward", "difference")
    report = {
        place: {
            "correlation": {name: each[0] for name, each in zip(names, given, strict=True)},
            "interval": {name: list(each[1:]) for name, each in zip(names, given, strict=True)},
            "truth": [0.0] * 128,
        }
        for place, given in figures.items()
    }
    (folder / "foresight.json").write_text(json.dumps(report))
    return folder


def write_study(
    root: Path, *, prompts: int = 64, text: str | None = None, seed: int = 0, given: list[Any] | None = None
) -> list[dict[str, Any]]:
    """The points of `POINTS` (or those given) on validation and test prompts; a prompt's difficulty is shared by all
    methods."""
    generator = np.random.default_rng(seed)
    sizes = {"validation": 32, "test": prompts}
    hard = {part: generator.normal(0, 1.2, size) for part, size in sizes.items()}
    entries = []
    for number, (method, settings, (proxy, gold, kl, kind)) in enumerate(given or POINTS):
        rewards: dict[str, dict[str, list[float]]] = {"proxy": {}, "gold": {}}
        scores = []
        for part, size in sizes.items():
            for row in range(size):
                length = int(generator.integers(12, 40))
                words = " ".join(generator.choice(WORDS, length))
                cost = kl if kind in ("bound", "none") else max(0.0, kl * (1 + generator.normal(0, 0.3)))
                rewards["proxy"][part] = []
                scores.append(
                    Score(
                        prompt_id=f"{part}-{row:03d}",
                        part=part,
                        sample=0,
                        method=method,
                        settings="{}",
                        prompt=f"Film review: {' '.join(generator.choice(WORDS, 3))}",
                        text=text if text is not None else f" {words}.",
                        rewards={
                            "proxy": proxy + hard[part][row] + generator.normal(0, 0.6),
                            "gold": gold + 1.3 * hard[part][row] + generator.normal(0, 0.9),
                        },
                        kl=cost,
                        kl_kind=kind,
                        logprob=-2.0 * length,
                        base_logprob=-2.2 * length,
                        length=length,
                        finished=bool(generator.random() < 0.8),
                        distinct_2=0.9 - (0.01 * kl if math.isfinite(kl) else 0.05),
                        repetition=0.004 * kl if math.isfinite(kl) else 0.02,
                        tokens=length * _width(method, settings),
                        flops=2.7e8 * length * _width(method, settings),
                        seconds=0.1 * (1 + number) * length / 25,
                    )
                )
        folder = root / f"{number}"
        folder.mkdir(parents=True)
        records.write(folder / "scores.parquet", Score, scores)
        entries.append({"label": f"{method} {settings}", "method": method, "settings": settings, "score": folder})
    return entries


def _width(method: str, settings: dict[str, Any]) -> int:
    """Tokens forwarded for each token of a response."""
    beams = settings.get("beams", 1) * settings.get("successors", 1)
    return settings.get("n", settings.get("k", 0) + 1) * beams


def verdict(prompt_id: str, preference: float | None, **changes: Any) -> Verdict:
    """A verdict on `vas` against `base` on a test prompt; without a preference a refusal."""
    given: dict[str, Any] = dict(
        prompt_id=prompt_id, part="test", sample=0, judge="careful", candidate="vas", reference="base", canary=False,
        order="reference_first", preference=preference, outcome="refusal" if preference is None else "verdict",
        problem="", candidate_chars=100, reference_chars=100, answer="", asked=1, model="", prompt_tokens=0,
        completion_tokens=0, cost=None, request="",
    )  # fmt: skip
    return Verdict(**{**given, **changes})


def write_verdicts(folder: Path, verdicts: list[Verdict]) -> Path:
    records.write(folder / "verdicts.parquet", Verdict, verdicts)
    return folder


def judged(entries: list[dict[str, Any]], root: Path, *, prompts: int = 64, seed: int = 1) -> list[dict[str, Any]]:
    """The study's entries with verdicts of one judge in both orders, against the base: who has more gold wins more
    often, second place helps, a few verdicts fail; and a null model that loses."""
    generator = np.random.default_rng(seed)
    made = []
    for number, (entry, (method, _, (_, gold, _, _))) in enumerate(zip(entries, POINTS, strict=True)):
        verdicts = []
        for row in range(prompts):
            lengths = {"candidate_chars": int(generator.integers(40, 200)), "reference_chars": 100 + row}
            for order, shift in (("reference_first", 0.1), ("candidate_first", -0.1)):
                chance = 1 / (1 + math.exp(0.9 - gold)) + shift
                preference: float | None = 1.0 + float(generator.random() < chance)
                changes: dict[str, Any] = {"candidate": method, "order": order, **lengths}
                if method == "base":
                    preference, changes = 1.5, changes | {"outcome": "identical"}
                elif generator.random() < 0.02:
                    preference = None
                verdicts.append(verdict(f"test-{row:03d}", preference, **changes))
            if row < 20:
                verdicts.append(verdict(f"test-{row:03d}", 1.0, candidate="null model", canary=True))
        made.append(entry | {"verdicts": write_verdicts(root / f"{number}", verdicts)})
    return made


def lineage() -> list[dict[str, Any]]:
    """The graph behind the study: a shared trunk, then decode and score of every point."""
    trunk = [
        ("corpus", [], 1.2, True), ("model", [], 21.0, True), ("gold_asset", [], 2.6, True),
        ("prompts", ["corpus"], 1.1, True), ("sft", ["model", "prompts"], 92.4, True),
        ("proxy", ["sft", "prompts"], 8.0, True), ("gold", ["gold_asset", "prompts"], 107.3, True),
        ("rollouts", ["sft", "prompts"], 64.0, True), ("labels", ["rollouts", "proxy", "prompts"], 6.1, False),
        ("value", ["labels", "sft", "prompts"], 41.7, False),
    ]  # fmt: skip
    nodes = [
        {"stage": name, "key": name, "inputs": inputs, "seconds": seconds, "reused": reused, "label": ""}
        for name, inputs, seconds, reused in trunk
    ]
    for number, (method, settings, _) in enumerate(POINTS):
        needs = {"base": [], "bon": ["proxy"], "vas": ["value"]}[method]
        label = f"method={method}" + "".join(f",method.{key}={value}" for key, value in settings.items())
        common = {"reused": False, "label": label}
        inputs = ["sft", "prompts", *needs]
        nodes.append({"stage": "decode", "key": f"d{number}", "inputs": inputs, "seconds": 12.0 + number, **common})
        inputs = [f"d{number}", "prompts", "proxy", "gold"]
        nodes.append({"stage": "score", "key": f"s{number}", "inputs": inputs, "seconds": 3.0, **common})
    return nodes
