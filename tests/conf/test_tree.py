"""Every file in conf/ and sweeps/ composes and can be planned, and what it says reaches the stages."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose

from conf.schemas.whole import WHOLE
from pipeline.config import check
from pipeline.graph import Graph
from pipeline.interpolation import config_key
from pipeline.points import Point

ROOT = Path(__file__).parents[2]
TUNED = ("dpo", "ppo")
"""Policies that stand beside π₀, in slots of their own."""


def choices() -> list[str]:
    found = []
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        group = path.parent.name
        slots = ["reward@proxy", "reward@gold"] if group == "reward" else [group]
        slots = [f"policy@{path.stem}"] if group == "policy" and path.stem in TUNED else slots
        found += [f"{slot}={path.stem}" for slot in slots]
    return found


@pytest.mark.parametrize("choice", choices())
def test_every_file_of_conf_is_planned(choice: str, needed: dict[str, list[str]]) -> None:
    config = compose("config", [choice, *needed.get(choice, [])])
    check(config, WHOLE)
    graph = Graph([Point.of(config)])
    assert [graph.nodes[key].name for key in graph.goals] == ["compare"]


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_every_sweep_is_planned(sweep: str, points_of: Callable[..., list[Point]]) -> None:
    points = points_of(sweep)
    for point in points:
        point.check(WHOLE)
    graph = Graph(points)
    assert len(points) > 1
    assert len(graph.nodes) < graph.naive


def test_tuned_policies_are_swept_along_their_tie_to_the_base_and_nothing_is_truncated(
    points_of: Callable[..., list[Point]],
) -> None:
    nodes = Graph(points_of("tuned")).nodes.values()
    trained = {name: sorted(n.config["beta"] for n in nodes if n.name == name) for name in ("dpo", "ppo")}
    assert trained == {"dpo": [0.05, 0.1, 0.5], "ppo": [0.05, 0.1, 0.5]}
    decoded = [node.config for node in nodes if node.name == "decode"]
    assert sorted(c["method"] for c in decoded) == ["base", *["dpo"] * 3, *["ppo"] * 3, *["vas"] * 4]
    assert {c["sampling"]["top_p"] for c in decoded} == {1.0}  # else a tuned policy's KL as sampled is infinite
    assert {c["base"] for c in decoded} == {c["policy"]["folder"] for c in decoded if c["method"] == "base"}
    assert len([n for n in nodes if n.name in ("rollouts", "value", "labels")]) == 3  # shared by all


def test_ppo_answers_as_every_policy_is_sampled_but_for_truncation() -> None:
    changed = ["sampling.temperature=0.7", "sampling.max_new_tokens=9", "sampling.stop=[END]", "sampling.top_p=0.5"]
    nodes = Graph([Point.of(compose("config", ["method=ppo", *changed]))]).nodes.values()
    (ppo,) = [node for node in nodes if node.name == "ppo"]
    settings = {name: value for name, value in ppo.config["sampling"].items() if name != "_target_"}
    assert settings == {"temperature": 0.7, "max_new_tokens": 9, "stop": ["END"]}


@pytest.mark.parametrize("stage", ["sft", "dpo", "ppo", "value", "tuned"])
def test_every_language_model_is_trained_as_the_trainer_and_the_model_s_dtype_say(stage: str) -> None:
    own = ["method=eft", "tuned=best_rollouts"]
    given = ["trainer.schedule=linear", "trainer.accumulate=2", "trainer.checkpoint_every=7", "model.dtype=float32"]
    graph = Graph([Point.of(compose("config", [*own, *given, f"goal=[{stage}]"]))])
    config = graph.nodes[graph.goals[0]].config
    assert config["dtype"] == "float32"
    assert config["trainer"]["schedule"] == "linear"
    assert config["runtime"]["_target_"] == "stages.learn.loop.trainer.TrainingRuntime"
    assert (config["runtime"]["accumulate"], config["runtime"]["checkpoint_every"]) == (2, 7)


def test_every_file_opens_with_the_command_that_uses_it() -> None:
    for path in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]:
        if "schema" not in path.parts:
            assert path.read_text().startswith("# tilt "), path


def test_a_value_is_trained_only_where_the_method_asks_for_one() -> None:
    def names(*overrides: str) -> set[str]:
        return {node.name for node in Graph([Point.of(compose("config", list(overrides)))]).nodes.values()}

    assert "value" in names("method=vas")
    assert "value" not in names("method=bon")
    assert {"rollouts", "labels"}.isdisjoint(names("method=base"))
    assert "sft" not in names("policy=as_is")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("stages.decode.guide.k", "method.k"),
        ("stages.decode.search.n", "method.n"),
        ("stages.decode.sampling.temperature", "sampling.temperature"),
        ("stages.prompts.table", "task.file"),
        ("stages.model.path", "model.path"),
        ("stages.value.layer", "value.layer"),
        ("stages.decode.parts", "evaluation.parts"),
    ],
)
def test_a_field_is_traced_to_the_key_that_sets_it(path: str, key: str) -> None:
    method = "bon" if "search" in path else "vas"
    own = ["task=csv", "task.file=prompts.csv", "model=local", "model.path=model"]
    assert config_key(compose("config", [f"method={method}", *own]), path) == key


def slots() -> list[str]:
    text = (ROOT / "conf/config.yaml").read_text()
    return re.findall(r"^  (\w+): \{slot: ", text, flags=re.MULTILINE)


def test_resources_said_at_a_slot_are_laid_over_what_fills_it() -> None:
    fill = ["reward@gold=minilm", "reward@proxy=minilm", "tuned=best_rollouts"]  # whatever may be filled is
    assert len(slots()) == 11
    goal = [f"goal=[{','.join(slots())}]", *fill]
    asked = [f"+stages.{slot}.resources={{memory: 3}}" for slot in slots()]
    points = [Point.of(compose("config", [*goal, *more])) for more in ([], asked)]
    plain, given = (Graph([point]).nodes for point in points)
    assert plain.keys() == given.keys()  # resources never count
    assert {name for name, key in points[1].stages.items() if given[key].resources.memory == 3} == set(slots())
    assert [node.resources.cores for node in plain.values()] == [given[key].resources.cores for key in plain]


def test_every_training_has_as_many_processes_as_devices_whatever_else_it_asks_for() -> None:
    own = ["method=eft", "tuned=best_rollouts", "goal=[sft,dpo,ppo,value,tuned,gold]"]
    asked = ["trainer.devices=3", *(f"+stages.{stage}.resources={{cores: 2}}" for stage in ("value", "dpo"))]
    one, three = (Graph([Point.of(compose("config", [*own, *more]))]) for more in ([], asked))
    assert one.goals == three.goals  # the keys are the same
    assert len(three.goals) == 6
    for key in three.goals:
        node = three.nodes[key]
        assert (one.nodes[key].resources.processes, node.resources.processes) == (1, 3)
        assert node.config["runtime"]["devices"] == 3
        assert node.config_key("resources.processes") == "trainer.devices"
        assert node.config_key("runtime.devices") == "trainer.devices"
        assert node.resources.cores == (2 if node.name in ("value", "dpo") else None)
