"""A model that reads whole chunks, in the policy's tokens and in a vocabulary of its own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from stages.decode.chunk_lane import ChunkLane, Written
from stages.decode.chunk_search import ChunkSearch
from stages.decode.scorers.explicit import ExplicitScorer
from stages.decode.scorers.implicit import ImplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.records import Prompt

TOLERANCE = 1e-5


Encoded = list[tuple[str, list[int]]]


Search = Callable[..., list[Response]]


@torch.inference_mode()
def test_a_chunk_read_at_once_equals_fresh_forwards(any_policy: LoadedLM) -> None:
    """Chunks of 5, 3 and 5 tokens behind prompts of 7 and 2, past every window; rows repeat, permute, and end early."""
    policy, draw = any_policy, torch.Generator().manual_seed(3)
    lane = Lane(policy)
    lane.wants_logits = True
    lane.tap(1)
    lane.prompts = [torch.randint(3, policy.vocabulary, (n,), generator=draw).tolist() for n in (7, 2)]
    lane.begin(4, 16, 5)
    ready = lane.prefill([0, 1])
    lane.enter([(ready[0], 1), (ready[1], 2)], 7)
    chunk_lane = ChunkLane(lane)
    chunk_lane.enter([0, 1, 1])
    which, rows = [0, 1, 1], [[], [], []]
    for lengths, going in (((5, 5, 2), [1, 0, 1]), ((3, 3, 3), [2, 2, 0]), ((5, 1, 5), [0])):
        for row, length in zip(rows, lengths, strict=True):
            row += torch.randint(3, policy.vocabulary, (length,), generator=draw).tolist()
        read = chunk_lane.forward([Written(row, "", False) for row in rows])
        assert read.tokens == list(lengths)
        for index, row in enumerate(rows):
            prompt = lane.prompts[which[index]]
            out = policy.model(input_ids=torch.tensor([[*prompt, *row]]), output_hidden_states=True, use_cache=False)
            states, logp = out.hidden_states[1][0], out.logits[0].double().log_softmax(-1)
            near: dict[str, Any] = {"atol": TOLERANCE * float(states.abs().max()), "rtol": 0.0}
            assert torch.allclose(read.newest[0][index], states[-1], **near)
            assert torch.allclose(read.before[0][index], states[-2], **near)
            expected = sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(row))
            assert read.logprob[index] == pytest.approx(expected, rel=1e-5, abs=1e-3)
        chunk_lane.select(going)
        which, rows = [which[i] for i in going], [list(rows[i]) for i in going]


# another vocabulary


def test_a_scorer_of_another_vocabulary_reads_the_text(
    search: Search,
    reference: Any,
    fresh_state: Any,
    fresh_logprob: Any,
    ending: LoadedLM,
    prompts: Encoded,
    asked: list[Prompt],
    strange_model: Path,
    make_head: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores equal a fresh encoding of prompt and text by the scorer's own tokenizer; few tokens are read twice."""
    other = CausalLM(strange_model).load("cpu")
    folder = make_head(layer=1, size=16, trunk=fingerprint(strange_model))
    head = ValueHead.load(folder)
    own = {p.id: list(other.tokenizer(p.text)["input_ids"]) for p in asked}
    by_ids = {tuple(ids): own[name] for name, ids in prompts}

    def encoded(prompt: list[int], response: list[int]) -> list[int]:
        text = str(ending.tokenizer.decode(response, skip_special_tokens=True))
        ids = [*by_ids[tuple(prompt)], *other.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return [*ids, other.eos] if response[-1] == ending.eos else ids

    def explicit(prompt: list[int], response: list[int]) -> float:
        return float(head(fresh_state(other.model, encoded(prompt, response), head.layer))[0])

    def implicit(prompt: list[int], response: list[int]) -> float:
        ids, start = encoded(prompt, response), by_ids[tuple(prompt)]
        return fresh_logprob(other.model, start, ids[len(start) :]) - fresh_logprob(ending.model, prompt, response)

    for scorer, score in (
        (ExplicitScorer(folder, CausalLM(strange_model)), explicit),
        (ImplicitScorer(CausalLM(strange_model)), implicit),
    ):
        for found, (prompt, ids) in zip(search(scorer, 2, 2, 2), prompts, strict=True):
            best, worth = reference(ending, prompt, ids, score, 2, 2, 2)
            assert found.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]
            assert found.token_ids == best


def test_a_response_that_is_longer_in_the_scorer_s_tokens_must_fit_its_context(
    ending: LoadedLM, prompts: Encoded, asked: list[Prompt], strange_model: Path, tmp_path: Path
) -> None:
    """There is room for the six tokens of the policy, not for as many letters as their text has."""
    tokenizer = AutoTokenizer.from_pretrained(strange_model)
    longest = max(len(tokenizer(prompt.text)["input_ids"]) for prompt in asked)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=longest + 6)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    search = ChunkSearch(2, 2, 2, ImplicitScorer(CausalLM(tmp_path)))
    with pytest.raises(BadInput) as error:
        search.decode(Lanes(ending), Draw(Sampling(max_new_tokens=6), 0, 64), Terms(), asked, prompts, 4)
    assert error.value.field == "search.scorer.tuned.folder"
    assert re.fullmatch(
        rf"a prompt of {longest} tokens and the \d+ that {tmp_path} makes of a response's text exceed its context of "
        rf"{longest + 6}; shorten the prompts or set a smaller max_new_tokens",
        error.value.problem,
    )


@torch.inference_mode()
def test_a_longer_text_is_read_from_the_last_token_that_both_share(policy: LoadedLM, strange_model: Path) -> None:
    """Of what the cache holds the longest common prefix stays, less one token, whose logits are needed again."""
    lanes = Lanes(policy)
    lane = lanes.join(CausalLM(strange_model), "search.scorer.tuned", eager=False)
    prompt = Prompt(id="a", part="test", text="two")
    lanes.add([("a", list(policy.tokenizer(prompt.text)["input_ids"]))], [prompt], 20)
    lane.begin(1, 60, 20)
    lane.enter([(lane.prefill([0])[0], 1)], len(lane.prompts[0]))
    reader = ChunkLane(lane)
    reader.enter([0])
    held = list(lane.prompts[0])
    for text in (" hours of", " hours of noi", " hours of noise"):
        ids = [*lane.prompts[0], *lane.lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
        common = next((i for i, (one, other) in enumerate(zip(ids, held, strict=False)) if one != other), len(held))
        (read,) = reader.forward([Written([], text, False)]).tokens
        assert read == len(ids) - (common - 1)
        reader.select([0])
        held = ids
    assert reader.held == [held]
