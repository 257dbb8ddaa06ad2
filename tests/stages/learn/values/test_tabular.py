"""The value stage on a tabular MDP, against dynamic programming.

Three tokens, one of them EOS, at most three steps: 22 states, 15 of them ends with a reward of their own. The rollouts
are all responses, each as often as the policy draws it among 64 (every probability is a quarter or a half), so that
what the stage has to find is exact: V(s) = r at an end, Σ π₀(a|s)·V(s ⊕ a) before it.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import records
from stages.engine.language_model import load_tokenizer
from stages.learn.values.head_training import HeadTraining
from stages.learn.values.load import load_value
from stages.learn.values.train import TrainValue
from stages.records import Labelled, Prompt

EOS, STEPS = 2, 3
TOKENS = (270, 280, EOS)
PROMPT = "the film "
State = tuple[int, ...]
STATES: list[State] = [s for n in range(STEPS + 1) for s in itertools.product(TOKENS, repeat=n) if EOS not in s[:-1]]
ENDS = [s for s in STATES if len(s) == STEPS or s[-1:] == (EOS,)]
TABLE = np.random.default_rng(3)
POLICY: dict[State, np.ndarray] = {s: TABLE.permutation([0.5, 0.25, 0.25]) for s in STATES if s not in ENDS}
REWARD: dict[State, float] = {s: float(TABLE.normal()) for s in ENDS}


TOLERANCE = 0.05
"""Of every value; the rewards reach from −1.1 to 3.3."""


def probability(s: State) -> float:
    return math.prod(float(POLICY[s[:i]][TOKENS.index(token)]) for i, token in enumerate(s))


def value(s: State) -> float:
    """Σ π₀(a|s)·V(s ⊕ a): the expected reward of what π₀ goes on to draw."""
    return REWARD[s] if s in REWARD else sum(p * value((*s, a)) for p, a in zip(POLICY[s], TOKENS, strict=True))


SCALE = math.sqrt(sum(probability(s) * (REWARD[s] - value(())) ** 2 for s in ENDS))
"""Deviation of the reward, in which η of the soft value is given."""


def soft_value(s: State) -> float:
    """η·log Σ π₀(a|s)·exp(V(s ⊕ a)/η) with η of one deviation."""
    if s in REWARD:
        return REWARD[s]
    each = zip(POLICY[s], TOKENS, strict=True)
    return SCALE * math.log(sum(p * math.exp(soft_value((*s, a)) / SCALE) for p, a in each))


def test_the_table_is_what_is_said_of_it():
    assert (len(STATES), len(ENDS)) == (22, 15)
    assert sum(probability(s) for s in ENDS) == 1
    assert value(()) == pytest.approx(sum(probability(s) * REWARD[s] for s in ENDS))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rollouts; those of three tokens without EOS were cut at the limit."""
    folder = tmp_path_factory.mktemp("tabular")
    drawn = [s for s in ENDS for _ in range(round(64 * probability(s)))]
    rollouts = [
        Labelled(
            prompt_id="p",
            sample=i,
            token_ids=list(s),
            text="",
            logprob=math.log(probability(s)),
            finished=s[-1] == EOS,
            part="train",
            rewards={"proxy": REWARD[s]},
        )
        for i, s in enumerate(drawn)
    ]
    records.write(folder / "prompts.parquet", Prompt, [Prompt(id="p", part="train", text=PROMPT)])
    records.write(folder / "labels.parquet", Labelled, rollouts)
    return folder


def errors(out: Path, labels: Path, base: Path, truth: Callable[[State], float] = value, **fields) -> dict:
    """|V(s) − truth| of every state that the trained head has a value of, in the reward's unit."""
    settings = {"learning_rate": 0.02, "epochs": 500, "batch_size": 64, "weight_decay": 0.0} | fields
    common = {"layer": 3, "dtype": "float32", "heldout": 0.0}
    TrainValue(labels=labels, prompts=labels, base=base, **common, **settings).run(out)
    trained = load_value(out, base)
    prompt = list(load_tokenizer(base)(PROMPT)["input_ids"])
    found = {}
    for end in ENDS:
        values = trained.states(prompt, list(end))[:, 0]  # (T+1,)
        found |= {end[:i]: abs(float(v) - truth(end[:i])) for i, v in enumerate(values) if not np.isnan(v)}
    return found


@pytest.mark.parametrize("td_lambda", [0.95, 0.5])  # Monte Carlo: below
def test_a_scalar_head_finds_the_value_of_every_state(tmp_path: Path, labels: Path, tiny_model: Path, td_lambda: float):
    found = errors(tmp_path, labels, tiny_model, td_lambda=td_lambda)
    assert len(found) == 22
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("td_lambda", [1.0, 0.5])
def test_a_head_over_the_vocabulary_finds_it_too(tmp_path: Path, labels: Path, tiny_model: Path, td_lambda: float):
    fields = {"head": "vocab", "learning_rate": 0.3, "epochs": 400}
    found = errors(tmp_path, labels, tiny_model, td_lambda=td_lambda, **fields)
    assert len(found) == 21  # it has no value of the prompt itself
    assert max(found.values()) < TOLERANCE


def test_the_soft_value_is_found_by_its_own_recursion(tmp_path: Path, labels: Path, tiny_model: Path):
    found = errors(tmp_path, labels, tiny_model, soft_value, target="soft")
    assert max(found.values()) < TOLERANCE
    assert soft_value(()) > value(()) + 0.1  # as by Jensen η·log E exp(r/η) ≥ E r
    assert "not the value of VAS" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("official", [False, True])
def test_the_state_after_eos_is_trained_and_official_masking_is_found_out(
    tmp_path: Path, labels: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, official: bool
):
    # VAS's published code masks the loss of a response's last state, and then scores the candidate EOS with it.
    def masked(self: HeadTraining, last: torch.Tensor, states: int) -> torch.Tensor:
        return torch.arange(states)[None] < last[:, None]

    if official:
        monkeypatch.setattr(HeadTraining, "trained_states", masked)
    found = errors(tmp_path, labels, tiny_model, td_lambda=1.0)
    after_eos = [error for s, error in found.items() if s[-1:] == (EOS,)]
    assert max(error for s, error in found.items() if s not in ENDS) < TOLERANCE  # all others are found either way
    assert (max(after_eos) > 10 * TOLERANCE) is official
    assert (max(after_eos) < TOLERANCE) is not official
