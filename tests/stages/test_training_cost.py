"""What models cost to train travels with them to the responses of the methods that need them; nobody names a method."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.decode.best_of import BestOf
from stages.decode.chunk_search import ChunkSearch
from stages.decode.decode import Decode
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.sampling import Sampling
from stages.label import Label
from stages.learn.policies.best_rollouts import BestRollouts
from stages.learn.policies.dpo import Dpo
from stages.learn.policies.sft import FineTune
from stages.learn.values.train import TrainValue
from stages.records import Labelled, Prompt, read, write
from stages.runtime import Runtime
from stages.sample import Sample
from stages.training_cost import TrainingCost, read_costs, training_costs


class Letters:
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.array([sum(text.count(letter) for letter in "aeo") for text in responses], dtype=float)


SAMPLING = Sampling(temperature=0.8, max_new_tokens=5)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Any]]:
    """Payloads by stage, and what each told of itself: everything learns from the same rollouts of π₀."""
    root = tmp_path_factory.mktemp("trained")
    folder = {name: root / name for name in ("prompts", "rollouts", "labels", "best", "tuned", "dpo", "value")}
    told: dict[str, Any] = {name: {} for name in folder}
    for path in folder.values():
        path.mkdir()
    texts = ["the film", "a dull", "two", "an honest story", "so", "the cast is", "loud and", "small and true"]
    records = [Prompt(id=f"p{i}", part="train", text=text) for i, text in enumerate(texts)]
    write(folder["prompts"] / "prompts.parquet", Prompt, records)
    small: dict[str, Any] = {"dtype": "float32", "epochs": 1.0, "batch_size": 4}
    data: dict[str, Any] = {"labels": folder["labels"], "prompts": folder["prompts"], "base": tiny_model}
    stages = {
        "rollouts": Sample(folder["prompts"], ["train"], CausalLM(tiny_model), SAMPLING, samples=4),
        "labels": Label(folder["rollouts"], folder["prompts"], {"proxy": Letters()}),
        "best": BestRollouts(folder["labels"], folder["prompts"], best=1, heldout=0.25),
        "tuned": FineTune(tiny_model, folder["best"], part="best", heldout="best_heldout", top_layers=0, **small),
        "dpo": Dpo(**data, margin=0.0, allow_truncated=True, top_layers=0, **small),
        "value": TrainValue(**data, rewards=["proxy"], layer=2, allow_truncated=True, **small),
    }
    for name, stage in stages.items():
        stage.runtime = Runtime(metrics=told[name].update)
        stage.run(folder[name])
    return folder, told


def costs(trained: Any, tiny_model: Path, out: Path, **parts: Any) -> list[TrainingCost]:
    folder, _ = trained
    settings: dict[str, Any] = {"policy": CausalLM(tiny_model), "base": tiny_model, "method": "m", "settings": {}}
    Decode(folder["prompts"], ["train"], sampling=SAMPLING, **settings | parts).run(out)
    return read_costs(out)


def test_a_method_costs_what_its_own_models_did(trained: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder, told = trained
    value, tuned = folder["value"], CausalLM(folder["tuned"])
    assert costs(trained, tiny_model, tmp_path) == []  # π₀ itself
    assert costs(trained, tiny_model, tmp_path, search=BestOf(2, Letters())) == []
    (vas,) = costs(trained, tiny_model, tmp_path, guide=ScalarValue(value, k=4))
    assert (vas.model, vas.train_flops) == ("Value model", told["value"]["train_flops"])
    (dpo,) = costs(trained, tiny_model, tmp_path, policy=CausalLM(folder["dpo"]))
    assert (dpo.model, dpo.train_tokens) == ("DPO policy", told["dpo"]["train_tokens"])
    search = ChunkSearch(2, 2, 2, ExplicitScorer(value))
    ivg = costs(trained, tiny_model, tmp_path, guide=ImplicitValue(tuned), search=search)
    assert {cost.model for cost in ivg} == {"Value model", "Fine-tuned policy"}
    assert [c for c in ivg if not (c.train_flops > 0 and c.train_tokens > 0)] == []


def test_all_that_learn_from_the_same_rollouts_say_what_drawing_them_cost(
    trained: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Every prompt was read once for its four samples, every response token but the last forwarded once."""
    folder, _ = trained
    rollouts = read(folder["labels"] / "labels.parquet", Labelled)
    tokenizer = CausalLM(tiny_model).load("cpu").tokenizer
    prompts = read(folder["prompts"] / "prompts.parquet", Prompt)
    tokens = sum(len(tokenizer(p.text)["input_ids"]) for p in prompts) + sum(len(r.token_ids) - 1 for r in rollouts)
    found = training_costs([folder["value"], folder["dpo"], {"tuned": [str(folder["tuned"])]}], tiny_model)
    assert [cost.rollout_tokens for cost in found] == [tokens] * 3
    assert [cost.rollout_flops for cost in found] == [pytest.approx(sum(r.flops for r in rollouts))] * 3
    assert found[0].rollout_flops > 2 * 10_000 * tokens  # the tiny trunk and head have some 36,000 weights


def test_a_policy_s_cost_is_not_counted_where_it_is_the_base(trained: Any, tmp_path: Path) -> None:
    folder, _ = trained
    policy = CausalLM(folder["tuned"])
    assert costs(trained, folder["tuned"], tmp_path, policy=policy, base=folder["tuned"]) == []
    assert costs(trained, folder["tuned"], tmp_path, policy=policy, base=None) == []


def test_shards_say_the_same(trained: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder, _ = trained
    guide = ScalarValue(folder["value"], k=4)
    stage = Decode(folder["prompts"], ["train"], CausalLM(tiny_model), "vas", {}, SAMPLING, tiny_model, guide)
    for name in ("0", "1", "merged", "whole"):
        (tmp_path / name).mkdir()
    stage.run(tmp_path / "whole")
    for index in range(2):
        stage.run_shard(tmp_path / str(index), index, 2)
    stage.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    assert read_costs(tmp_path / "merged") == read_costs(tmp_path / "whole") != []


def test_the_file_is_plain_json(trained: Any) -> None:
    written = json.loads((trained[0]["dpo"] / "training.json").read_text())
    assert sorted(written) == ["model", "rollout_flops", "rollout_tokens", "train_flops", "train_tokens"]
