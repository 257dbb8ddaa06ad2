"""Every file in conf/ and sweeps/ composes and can be planned."""

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conf.schema import register_schemas
from conf.whole import WHOLE
from hydra_plugins.tilt.launcher import register_launcher
from hydra_plugins.tilt.sweeper import expand, read_blocks, register_sweeper
from pipeline.config import check, register_resolvers
from pipeline.errors import UsageError
from pipeline.graph import Graph
from pipeline.interpolation import config_key
from pipeline.points import Composition, Point
from stages.judge.judge import Judge

ROOT = Path(__file__).parents[1]
NEEDED = {  # what a file leaves to its user
    "task=csv": ["task.file=prompts.csv"],
    "judge=compatible": ["judge.base_url=http://127.0.0.1:8000/v1", "judge.model=x"],
    "model=local": ["model.path=model"],
    "model=hub": ["model.repo=owner/name", "model.revision=0123abc"],
}
TUNED = ("dpo", "ppo")
"""Policies that stand beside π₀, in slots of their own."""


@pytest.fixture(autouse=True)
def composing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    register_resolvers()
    register_schemas()
    register_launcher()
    register_sweeper()
    (tmp_path / "model").mkdir()
    (tmp_path / "prompts.csv").write_text("prompt\nwhy\n")
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="conf", version_base="1.3"):
        yield


def choices() -> list[str]:
    found = []
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        group = path.parent.name
        slots = ["reward@proxy", "reward@gold"] if group == "reward" else [group]
        slots = [f"policy@{path.stem}"] if group == "policy" and path.stem in TUNED else slots
        found += [f"{slot}={path.stem}" for slot in slots]
    return found


@pytest.mark.parametrize("choice", choices())
def test_every_file_of_conf_is_planned(choice: str) -> None:
    config = compose("config", [choice, *NEEDED.get(choice, [])])
    check(config, WHOLE)
    graph = Graph([Point.of(config)])
    assert [graph.nodes[key].name for key in graph.goals] == ["compare"]


@pytest.mark.parametrize("judge", ["reward", "openai", "compatible"])
def test_every_judge_is_planned_against_the_base_policy(judge: str) -> None:
    graph = Graph([Point.of(compose("config", [f"judge={judge}", "goal=[judge]", *NEEDED.get(f"judge={judge}", [])]))])
    (key,) = graph.goals
    assert {"decode", "reference"} <= set(graph.nodes[key].inputs)


def test_a_judge_is_priced_while_planning_and_a_second_one_keeps_its_own_keys() -> None:
    second = ["judge@second_judge=compatible", "second_judge.model=x", "second_judge.base_url=http://127.0.0.1:8000/v1"]
    (node,) = [
        node
        for node in Graph([Point.of(compose("config", ["judge=openai", *second]))]).nodes.values()
        if node.name == "judge"
    ]
    judge = Judge(**{name: value for name, value in node.config.items() if name != "_target_"})
    found = judge.estimate()
    assert found["calls"] == 2 * 2 * (64 + 20)  # judges · orders · (test prompts + the null model's)
    assert found["dollars"] is None  # the second one's price is not known
    assert "no price is known for x" in found["note"]
    assert node.config_key("judges.main.runtime.max_cost") == "judge.max_cost"
    assert node.config_key("judges.second.judge.runtime.max_cost") == "second_judge.max_cost"
    assert node.config_key("judges.second.judge.runtime.max_cost_run") == "max_cost"
    assert node.config_key("judges.second.order") == "second_judge.order"
    assert node.config_key("canary") == "judge.canary"


def judging(*overrides: str) -> Any:
    """The one node of the stage `judge` in a run with these overrides."""
    config = compose("config", list(overrides))
    check(config, WHOLE)
    (node,) = [node for node in Graph([Point.of(config)]).nodes.values() if node.name == "judge"]
    return node


def calls(*overrides: str) -> int:
    """Questions that the judges of such a run will put at most."""
    return Judge(**{k: v for k, v in judging(*overrides).config.items() if k != "_target_"}).estimate()["calls"]


def test_each_judge_has_an_order_and_a_canary_of_its_own() -> None:
    both = ["judge=reward", "judge@second_judge=openai"]
    # (64 test prompts + the null model's 20) · 2 orders; the reward asks nobody, and its null model's 1000 are its own
    assert calls(*both) == 168
    assert calls(*both, "judge.canary=0", "judge.order=as_is") == 168
    assert calls(*both, "second_judge.canary=3") == 134
    assert calls(*both, "second_judge.order=seeded") == 84


def test_one_judge_is_configured_as_it_was_before_there_could_be_two() -> None:
    config = judging("judge=openai").config
    assert (config["order"], config["canary"]) == ("both", 20)
    assert config["judges"]["second"] is None
    assert config["judges"]["main"]["_target_"] == "stages.judge.api_judge.ApiJudge"
    assert set(config) == {
        "_target_", "generations", "reference_generations", "prompts", "parts", "judges", "order", "canary", "expected",
        "runtime",
    }  # fmt: skip


@pytest.mark.parametrize("goal", ["compare", "judge"])
def test_a_second_judge_without_a_first_is_refused_before_anything_runs(goal: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(compose("config", ["judge@second_judge=reward", f"goal=[{goal}]"]), WHOLE)
    assert str(refused.value) == (
        "second_judge: nobody would judge: choose a first judge, as judge=reward, or no second, judge@second_judge=none"
    )


def points_of(sweep: str, *more: str) -> list[Point]:
    """The points of a sweep; as the launcher does it, each choice of groups is composed once and values laid over."""
    parser, compositions, points = OverridesParser.create(), dict[tuple[str, ...], Composition](), list[Point]()
    for overrides in expand(read_blocks(sweep), {}):
        groups = tuple(o for o in (*overrides, *more) if "." not in o.partition("=")[0])
        values = tuple(parser.parse_override(o) for o in (*overrides, *more) if o not in groups)
        if groups not in compositions:
            compositions[groups] = Composition(compose("config", list(groups)))
        given = tuple((o.get_key_element(), o.value()) for o in values)
        points.append(Point(" ".join(overrides), compositions[groups], given))
    return points


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_every_sweep_is_planned(sweep: str) -> None:
    points = points_of(sweep)
    for point in points:
        point.check(WHOLE)
    graph = Graph(points)
    assert len(points) > 1
    assert len(graph.nodes) < graph.naive


def test_tuned_policies_are_swept_along_their_tie_to_the_base_and_nothing_is_truncated() -> None:
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


def test_one_word_puts_the_value_s_foresight_into_the_report() -> None:
    def compared(*overrides: str) -> tuple[set[str], Any]:
        graph = Graph(points_of("demo", *overrides))
        (key,) = graph.goals
        return {graph.nodes[k].name for k in graph.ancestors(key)}, graph.nodes[key]

    names, node = compared()
    assert "foresight" not in names
    assert not any(entry["foresight"] for entry in node.config["points"])
    names, node = compared("foresight=on", "foresight.samples=4")
    assert "foresight" in names
    for entry in node.config["points"]:
        by = (entry["settings"].get("token_by"), entry["settings"].get("chunk_by"))
        assert bool(entry["foresight"]) == (entry["method"] == "vas" or "explicit" in by), entry
    assert len({entry["foresight"] for entry in node.config["points"]} - {None}) == 1  # they share their value
    assert all("decode" in entry for entry in node.config["points"])


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


def test_the_command_line_replaces_what_a_block_sweeps_and_is_added_elsewhere() -> None:
    blocks = [
        {"method": ["method=base"]},
        {"method": ["method=vas"], "method.beta": ["method.beta=1", "method.beta=2"]},
    ]
    given = {"method.beta": ["method.beta=3"], "seed": ["seed=1", "seed=2"]}
    assert list(expand(blocks, given)) == [
        ("method=base", "seed=1"),
        ("method=base", "seed=2"),
        ("method=vas", "method.beta=3", "seed=1"),
        ("method=vas", "method.beta=3", "seed=2"),
    ]


def test_blocks_are_spelt_as_hydra_reads_them() -> None:
    parser = OverridesParser.create()
    for block in read_blocks("demo"):
        for values in block.values():
            assert all(not override.is_sweep_override() for override in parser.parse_overrides(values))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("blocks: [1]", "1 is not a mapping from override to value or list of values"),
        ("blocks: [{method: vas}, null]", "null is not a mapping from override to value or list of values"),
        ("blocks: [{method: []}]", "method has no value to choose from"),
    ],
)
def test_a_block_that_is_none_is_named_by_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_blocks(str(path))
    assert str(refused.value) == f"sweep: {path}: blocks[{text.count('vas')}]: {problem}"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("evaluation.samples=two", "evaluation.samples: two is not a positive number of responses"),
        ("evaluation.samples=0", "evaluation.samples: 0 is not a positive number of responses"),
        ("evaluation.samples=1.5", "evaluation.samples: 1.5 is not a positive number of responses"),
        ("evaluation.rows=true", "evaluation.rows: True is not a positive number of sequences"),
        ("evaluation.seed=-1", "evaluation.seed: -1 is not a whole number, 0 or more"),
        ("evaluation.parts=test", "evaluation.parts: test is not a list of parts"),
        ("compare.draws=abc", "compare.draws: abc is not a number of draws, 1,000 or more"),
        ("compare.draws=10", "compare.draws: 10 is not a number of draws, 1,000 or more"),
        ("compare.slack=x", "compare.slack: x is not a number of standard errors, 0 or more"),
        ("compare.slack=nan", "compare.slack: nan is not a number of standard errors, 0 or more"),
        ("compare.seed=-1", "compare.seed: -1 is not a whole number, 0 or more"),
        ("+compare.shown=1.5", "compare.shown: 1.5 is not a number of prompts, 0 or more"),
        ("+compare.shown=-1", "compare.shown: -1 is not a number of prompts, 0 or more"),
        ("compare.select_part=null", "compare.select_part: null is not a part, or empty (none is chosen)"),
        ("compare.report_part=", "compare.report_part:  is not a part"),
        ("max_cost=abc", "max_cost: abc is not an amount of dollars, 0 or more"),
        ("max_cost=-1", "max_cost: -1 is not an amount of dollars, 0 or more"),
        ("name=null", "name: null is not a name"),
        ("store=null", "store: null is not a folder"),
        ("runs=", "runs:  is not a folder"),
        ("objective=[1,[]]", "objective: [] is not a stage's metric (stage.metric) or a list of them"),
    ],
)
def test_what_stands_in_the_configuration_itself_is_held_against_its_bounds(override: str, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(compose("config", [override]), WHOLE)
    assert str(refused.value) == line


def test_a_value_of_a_sweep_is_held_against_the_same_bounds() -> None:
    shared = Composition(compose("config", []))
    for value in ("two", 0):
        with pytest.raises(UsageError, match=rf"evaluation.samples: {value} is not a positive number of responses"):
            Point("", shared, (("evaluation.samples", value),)).check(WHOLE)


def test_the_bounds_of_the_configuration_itself_let_pass_what_has_a_meaning() -> None:
    given = ["compare.select_part=", "compare.slack=0.5", "+compare.shown=0"]
    config = compose("config", [*given, "max_cost=2", "name=2026", "objective=[a.b]"])
    check(config, WHOLE)
    assert (config.compare.select_part, config.compare.slack, config.compare.draws) == ("", 0.5, 2000)
    own = compose("config", ["compare._target_=mine.Compare", "compare.draws=few"])
    check(own, WHOLE)  # a comparison of another class knows its own words


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


@pytest.mark.parametrize(
    "values",
    [
        {"method.beta": 3.0},
        {"method.k": 5, "sampling.temperature": 0.5},
        {"task.parts.test.size": 9, "value.td_lambda": 1},
        {"gold.name": "proxy"},
        {"model.dtype": "float32", "evaluation.seed": 4},
        {"evaluation.samples": 2},
    ],
)
def test_values_laid_over_a_composition_give_the_keys_of_a_full_composition(values: dict[str, object]) -> None:
    shared = Composition(compose("config", []))
    before = Graph([Point("", shared)]).nodes.keys()
    laid = Graph([Point("", shared, tuple(values.items()))]).nodes.keys()
    full = Graph([Point.of(compose("config", [f"{key}={value}" for key, value in values.items()]))]).nodes.keys()
    assert laid == full
    assert laid != before
    assert Graph([Point("", shared)]).nodes.keys() == before  # nothing of the values stays behind


@pytest.mark.parametrize("method", sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml")))
def test_every_number_of_a_method_counts_in_a_sweep_as_it_does_alone(method: str) -> None:
    """Each at twice its default; of IVG both guides' numbers, which it reads through `${method.guides.${…}}`."""
    parts = [["method.token_by=explicit"], ["method.token_by=implicit"]] if method == "ivg" else [[]]
    for chosen in parts:
        shared = Composition(compose("config", [f"method={method}", *chosen]))
        numbers = {
            k: v for k, v in OmegaConf.to_container(shared.config.method, resolve=False).items() if _is_number(v)
        }
        for key, number in numbers.items():
            doubled = (f"method.{key}", 2 * number)
            laid = Graph([Point("", shared, (doubled,))]).nodes.keys()
            alone = compose("config", [f"method={method}", *chosen, f"{doubled[0]}={doubled[1]}"])
            assert laid == Graph([Point.of(alone)]).nodes.keys(), doubled


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
