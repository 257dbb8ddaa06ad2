"""Log-ratios of two models as a scorer."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.decode.parts import ChunkStates, Successor
from stages.decode.scorers.implicit import ImplicitScorer, LogRatios
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.errors import BadInput


def lane(name: str, *, eager: bool, probabilities: list[list[float]] | None = None) -> Any:
    """A lane whose next tokens have these probabilities, (R, V)."""
    logits = None if probabilities is None else torch.tensor(probabilities).log()
    cpu = torch.device("cpu")

    class Fixed:
        pass

    found: Any = Fixed()  # hashable, as lanes are
    found.lm, found.eager, found.logits, found.device = SimpleNamespace(folder=name), eager, logits, cpu
    return found


def chunk(logprob: list[float]) -> ChunkStates:
    nothing = torch.zeros(len(logprob))
    return ChunkStates((), (), nothing, logprob, [], [])


def chosen(*tokens: int) -> Any:
    return SimpleNamespace(token=torch.tensor(tokens))


def test_models_that_step_are_summed_token_by_token() -> None:
    """Tuned (½, ¼, ¼), untuned (¼, ½, ¼). Tokens 0, 0: 2·log 2; tokens 1, 2: −log 2 + 0."""
    tuned = lane("tuned", eager=True, probabilities=[[0.5, 0.25, 0.25]] * 2)
    untuned = lane("untuned", eager=True, probabilities=[[0.25, 0.5, 0.25]] * 2)
    scorer, rows = LogRatios(tuned, untuned), [Successor(0, 0), Successor(0, 0, slot=1)]
    for tokens in ((0, 1), (0, 2)):
        scorer.chosen(rows, chosen(*tokens))
        scorer.stepped(rows)
    assert scorer.scores(rows, {}, []) == pytest.approx([2 * math.log(2), -math.log(2)])
    assert rows[0].logprobs == pytest.approx([2 * math.log(0.5), 2 * math.log(0.25)])
    assert not scorer.keeps_last


def test_models_that_read_chunks_are_asked_by_the_row_s_place() -> None:
    """Places changed since the chunk began: row 0 was the second. −1 − (−4) = 3 and −2 − (−7) = 5."""
    tuned, untuned = lane("tuned", eager=False), lane("untuned", eager=False)
    rows = [Successor(0, 0, origin=1), Successor(0, 0, origin=0)]
    states = {tuned: chunk([-2.0, -1.0]), untuned: chunk([-7.0, -4.0])}
    scorer = LogRatios(tuned, untuned)
    scorer.chosen(rows, chosen(0, 0))  # neither steps: nothing is summed here
    assert rows[0].logprobs == [0.0, 0.0]
    assert scorer.scores(rows, states, []) == [3.0, 5.0]


def test_one_may_step_and_the_other_read_chunks() -> None:
    """The tuned model reads chunks (−.5), the untuned one steps: log ¼."""
    tuned, untuned = lane("tuned", eager=False), lane("untuned", eager=True, probabilities=[[0.25, 0.75]])
    scorer, rows = LogRatios(tuned, untuned), [Successor(0, 0)]
    scorer.chosen(rows, chosen(0))
    assert scorer.scores(rows, {tuned: chunk([-0.5])}, []) == pytest.approx([-0.5 - math.log(0.25)])


def test_the_policy_is_the_untuned_model_where_none_is_named(policy: LoadedLM, tuned_model: Path) -> None:
    lanes = Lanes(policy)
    opened = ImplicitScorer(CausalLM(tuned_model)).open(lanes)
    tuned, untuned = opened.lanes
    assert untuned is lanes.policy
    assert (tuned.lm.folder, tuned.eager, tuned.wants_logits) == (tuned_model, False, True)
    assert opened.name == f"log-ratio of {tuned_model} and {policy.folder}"


@pytest.mark.parametrize("which", ["tuned", "untuned"])
def test_a_model_that_is_not_there_is_named(policy: LoadedLM, tuned_model: Path, which: str) -> None:
    models = {"tuned": CausalLM(tuned_model), "untuned": CausalLM(tuned_model), which: CausalLM(Path("nowhere"))}
    with pytest.raises(BadInput, match="nowhere is not a folder") as error:
        ImplicitScorer(**models).open(Lanes(policy))
    assert error.value.field == f"search.scorer.{which}.folder"
