"""A value's adapted top on the policy's trunk: what is below the fork runs once, and every state is that of the whole
adapted model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine import lanes as lanes_module
from stages.engine.causal_lm import CausalLM
from stages.engine.fork import branch_of, tap_of
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.sections import Sections, Tap
from stages.learn.values.scalar_head import fingerprint
from stages.learn.values.train import TrainValue
from stages.learn.values.vocab_head import VocabHead
from stages.records import Labelled, Prompt, write

TOLERANCE = 1e-5


Prompts = list[tuple[str, list[int]]]


def fresh(policy: LoadedLM, ids: list[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Last token's logits (V,) and hidden states, (D,) a layer, from the whole sequence without any cache."""
    out = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1], tuple(state[0, -1] for state in out.hidden_states)


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(("fork", "layer"), [(1, 2), (1, 3), (2, 3)])
@torch.inference_mode()
def test_states_and_logits_are_those_of_two_fresh_forwards(
    any_policy: LoadedLM, tuned_above: Callable[..., Any], fork: int, layer: int
) -> None:
    """Prompts of 7 and 2 tokens, steps of 5 and 3 candidates and of one token, past every window; rows leave and move.
    Layer 3 is the last: its state has gone through the final norm."""
    policy = any_policy
    model = tuned_above(policy.model, fork, layer)
    whole = LoadedLM(policy.folder, model, policy.tokenizer, "policy.folder")
    branch = branch_of(policy, whole, "policy.folder")
    assert branch is not None
    assert branch.first == fork
    lane = Lane(policy)
    lane.wants_logits = True
    place = lane.tap(tap_of(branch, layer))
    draw = torch.Generator().manual_seed(fork + layer)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(3, policy.vocabulary, shape, generator=draw)

    lane.prompts = [tokens(7).tolist(), tokens(2).tolist()]
    lane.begin(3, 16, 5)
    ready = lane.prefill([0, 1])
    lane.enter([(ready[0], 1), (ready[1], 2)], 7)
    prefixes = [list(lane.prompts[i]) for i in (0, 1, 1)]

    def assert_newest() -> None:
        assert lane.logits is not None
        for row, prefix in enumerate(prefixes):
            assert_near(lane.logits[row], fresh(policy, prefix)[0])
            assert_near(lane.states[place][row], fresh(whole, prefix)[1][layer])

    assert_newest()
    for width, stay in ((5, [0, 1, 2]), (1, [2, 1]), (3, [0, 1]), (5, [1, 0]), (1, [0])):
        ids = tokens(len(prefixes), width)
        out = lane.forward(ids)
        for row, prefix in enumerate(prefixes):
            for column in range(width):
                state = fresh(whole, [*prefix, int(ids[row, column])])[1][layer]
                assert_near(out.states[place][row, column], state)
        chosen = torch.randint(width, (len(prefixes),), generator=draw)
        lane.cache.keep(chosen)
        prefixes = [[*prefixes[row], int(ids[row, chosen[row]])] for row in stay]
        lane.select(stay, states=False)
        rows = torch.tensor(stay)
        lane.take(out.at(rows, chosen[rows]))
        assert_newest()


# the engine


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`apart()`: from now on nothing is shared."""
    return lambda: monkeypatch.setattr(lanes_module, "branch_of", lambda *_: None)


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


def assert_same(shared: list[Response], apart: list[Response]) -> None:
    assert tokens(shared) == tokens(apart)
    assert [row.kl for row in shared] == pytest.approx([row.kl for row in apart], abs=1e-5)
    assert [row.logprob for row in shared] == pytest.approx([row.logprob for row in apart], abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"outside": "prefix"}, {"outside": "drop"}, {"k": 1, "outside": "drop"}])
def test_a_shared_trunk_decodes_as_a_whole_second_model(
    decode: Any, top_head: Path, head: Path, apart: Callable[[], None], options: dict[str, Any]
) -> None:
    guide = ScalarValue(top_head, **{"beta": 2.0, "k": 5, **options})
    shared, few = decode(guide, samples=3, max_new_tokens=8), decode(guide, samples=3, max_new_tokens=8, rows=2)
    apart()
    whole = decode(guide, samples=3, max_new_tokens=8)
    assert_same(shared, whole)
    assert_same(few, whole)
    assert [(row.tokens, row.flops) for row in few] == [(row.tokens, row.flops) for row in shared]


def test_a_vocabulary_wide_value_reads_a_branch(
    policy: LoadedLM, decode: Any, tuned_top: Path, apart: Callable[[], None], tmp_path: Path
) -> None:
    head = VocabHead(size=32, vocabulary=policy.vocabulary, reward="proxy", layer=2, trunk=fingerprint(tuned_top))
    with torch.no_grad():
        head.last.weight.copy_(torch.randn(head.last.weight.shape, generator=torch.Generator().manual_seed(6)) * 0.3)
    head.save(tmp_path)
    guide = VocabValue(tmp_path, beta=1.5, model=CausalLM(tuned_top))
    shared = decode(guide)
    assert tokens(shared) != tokens(decode())
    apart()
    assert_same(shared, decode(guide))


def test_values_of_several_layers_share_one_branch(
    policy: LoadedLM, decode: Any, tuned_top: Path, make_head: Any, apart: Callable[[], None]
) -> None:
    """States 1 (below the fork: the policy's own), 2 and 3 of the tuned model, and state 2 of the policy."""
    heads = [
        ScalarValue(make_head(layer=n, trunk=fingerprint(tuned_top)), model=CausalLM(tuned_top)) for n in (1, 2, 3)
    ]
    guide = Sum([*heads, ScalarValue(make_head(layer=2))], [1.0, -0.5, 0.7, 1.0])
    lanes = Lanes(policy)
    guide.open(lanes, Sampling())
    assert len(lanes.all) == 1
    reads = lanes.policy.taps
    assert [read.layer if isinstance(read, Tap) else read for read in reads] == [1, 2, 3, 2]
    assert len({read.branch for read in reads if isinstance(read, Tap)}) == 1
    shared = decode(guide)
    apart()
    assert_same(shared, decode(guide))


def test_a_scorer_reads_the_branch_of_a_guide(
    policy: LoadedLM, prompts: Prompts, top_head: Path, apart: Callable[[], None]
) -> None:
    asked = [Prompt(id=name, part="test", text=str(policy.tokenizer.decode(ids))) for name, ids in prompts]
    sampling, search = Sampling(max_new_tokens=6), ChunkSearch(2, 2, 2, ExplicitScorer(top_head))

    def run(guided: bool) -> list[Any]:
        lanes = Lanes(policy)
        terms = ScalarValue(top_head, beta=1.0, k=4).open(lanes, sampling)
        if not guided:
            terms.scalar, terms.candidates = [], None
        return search.decode(lanes, Draw(sampling, 0, 64), terms, asked, prompts, 1)

    shared = [run(guided) for guided in (True, False)]
    apart()
    for one, guided in zip(shared, (True, False), strict=True):
        other = run(guided)
        assert tokens(one) == tokens(other)
        assert [row.score for row in one] == pytest.approx([row.score for row in other], abs=1e-4)


# what is shared


def test_a_value_that_the_value_stage_trained_with_adapters_shares_the_trunk(
    policy: LoadedLM, tiny_model: Path, decode: Any, apart: Callable[[], None], tmp_path: Path
) -> None:
    """LoRA on the one layer below state 2; the reward counts a response's tokens below 280."""
    drawn = torch.randint(260, 300, (24, 5), generator=torch.Generator().manual_seed(0)).tolist()
    rollouts = [
        Labelled(
            prompt_id=f"p{i % 6}",
            sample=i // 6,
            token_ids=[*ids, 2],
            text="",
            logprob=-1.0,
            finished=True,
            part="train",
            rewards={"proxy": float(sum(token < 280 for token in ids))},
        )
        for i, ids in enumerate(drawn)
    ]
    write(tmp_path / "prompts.parquet", Prompt, [Prompt(id=f"p{i}", part="train", text="the film") for i in range(6)])
    write(tmp_path / "labels.parquet", Labelled, rollouts)
    value = tmp_path / "value"
    value.mkdir()
    adapters: dict[str, Any] = {"lora_rank": 2, "top_layers": 1, "layer": 2, "head": "linear", "dtype": "float32"}
    TrainValue(labels=tmp_path, prompts=tmp_path, base=tiny_model, epochs=3, learning_rate=1e-2, **adapters).run(value)
    guide = ScalarValue(value, beta=3.0, k=5)
    lanes = Lanes(policy)
    guide.open(lanes, Sampling())
    assert len(lanes.all) == 1
    (tap,) = lanes.policy.taps
    assert isinstance(tap, Tap)
    assert (tap.branch.first, tap.layer) == (1, 2)
    shared = decode(guide)
    assert tokens(shared) != tokens(decode())
    apart()
    assert_same(shared, decode(guide))


def copied(source: Path, to: Path, change: Callable[[Any], Any]) -> Path:
    """The model of a folder with some weights changed."""
    model = load_model(source, dtype="float32", device="cpu")
    with torch.no_grad():
        change(model.base_model)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(source).save_pretrained(to)
    return to


def opened(guide: ScalarValue, policy: LoadedLM) -> Lanes:
    """The lanes that a guide makes around the policy."""
    lanes = Lanes(policy)
    guide.open(lanes, Sampling())
    return lanes


@pytest.mark.parametrize(
    "change",
    [
        lambda trunk: trunk.layers[0].mlp.up_proj.weight.mul_(1.5),
        lambda trunk: trunk.embed_tokens.weight[7].mul_(1.5),
        lambda trunk: trunk.norm.weight.mul_(1.5),
    ],
    ids=["the first layer", "the embeddings", "the final norm"],
)
def test_a_model_that_differs_below_or_beside_its_upper_layers_steps_beside_the_policy(
    policy: LoadedLM, tiny_model: Path, make_head: Any, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    other = copied(tiny_model, tmp_path / "other", change)
    lanes = opened(ScalarValue(make_head(trunk=fingerprint(other)), k=4, model=CausalLM(other)), policy)
    assert [lane.lm.folder for lane in lanes.all] == [policy.folder, other]


def test_another_way_to_encode_prompts_is_another_lane(
    policy: LoadedLM, tuned_top: Path, make_head: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tuned_top, other)
    guide = ScalarValue(make_head(trunk=fingerprint(other)), k=4, model=CausalLM(other))
    assert len(opened(guide, policy).all) == 1
    (other / "chat_template.jinja").write_text("{{ messages[0].content }} is superb")
    assert len(opened(guide, policy).all) == 2


def test_other_numbers_are_another_lane(policy: LoadedLM, tuned_top: Path, make_head: Any) -> None:
    head = make_head(trunk=fingerprint(tuned_top))
    guide = ScalarValue(head, k=4, model=CausalLM(tuned_top, dtype="bfloat16"))
    assert len(opened(guide, policy).all) == 2


def test_a_copy_of_the_policy_is_the_policy(
    policy: LoadedLM, decode: Any, tiny_model: Path, head: Path, tmp_path: Path
) -> None:
    """No layer differs: the value reads the policy's own state."""
    twin = tmp_path / "twin"
    shutil.copytree(tiny_model, twin)
    guide = ScalarValue(head, k=4, beta=2.0, model=CausalLM(twin))
    assert opened(guide, policy).policy.taps == [2]
    shared, own = decode(guide), decode(ScalarValue(head, k=4, beta=2.0))
    assert [row.token_ids for row in shared] == [row.token_ids for row in own]


def test_a_branch_that_a_trial_forward_does_not_confirm_is_not_used(
    policy: LoadedLM, tuned_top: Path, make_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture whose layers hand something else on, beside their states, would give other states."""

    run = Sections.run

    def shifted(self: Sections, first: int, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        return {index: state + (0.5 if first else 0) for index, state in run(self, first, *args, **kwargs).items()}

    monkeypatch.setattr(Sections, "run", shifted)
    guide = ScalarValue(make_head(trunk=fingerprint(tuned_top)), k=4, model=CausalLM(tuned_top))
    assert len(opened(guide, policy).all) == 2
