"""Each setting is said once: in the YAML files. Schemas give bounds alone, and a class has YAML's value or no default.

Every configuration of conf/ is composed. For each `_target_` in it, the defaults of the class's fields are held against
what the YAML files say for these fields.
"""

import dataclasses
import importlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, OmegaConf

from conf.dtypes import register_dtypes
from conf.schemas.register import SCHEMAS, register_schemas
from conf.schemas.whole import WHOLE
from hydra_plugins.tilt.launcher import register_launcher
from hydra_plugins.tilt.sweeper import register_sweeper
from pipeline.config import FILE, STAGE, register_resolvers

CONF = Path(__file__).parents[1] / "conf"
NEEDED = {  # what a file leaves to its user
    "task=csv": ["task.file=prompts.csv"],
    "judge=compatible": ["judge.base_url=http://127.0.0.1:8000/v1", "judge.model=x"],
    "model=local": ["model.path=model"],
    "model=hub": ["model.repo=owner/name", "model.revision=0123abc"],
}
LEFT_OUT = {
    "Sampling.top_p": "off. conf/policy/ppo.yaml leaves truncation out, as a ratio needs every token's probability",
    "ScalarValue.transform": "identity. conf/method/fudge.yaml alone transforms its value",
}
"""Fields whose default is what holds in the files that leave them out."""
NOTHING_GIVEN = {
    "Judge.parts": "empty: all parts. config.yaml gives compare.report_part",
    "Expected.parts": "empty: sizes are not known. config.yaml gives task.parts",
    "ApiJudge.prices": "null: prices are not known. conf/judge/openai.yaml gives conf/prices.yaml",
    "Traffic.account": "empty: nobody adds up. conf/judge/openai.yaml gives the run's name",
}
"""Fields whose default says that nothing is given, while config.yaml gives what stands elsewhere."""
OFF = {
    "Sampling.temperature": "1: logits as they are. conf/sampling/default.yaml gives the task's",
}
"""Fields whose default changes nothing, as that of the truncations beside it: people call the class from Python too."""

Said = dict[str, dict[str, list[Any]]]
"""Target → field → the values that YAML says, each once."""


@pytest.fixture(scope="module", autouse=True)
def composing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for register in (register_resolvers, register_schemas, register_launcher, register_sweeper):
        register()
    folder = tmp_path_factory.mktemp("composing")
    (folder / "model").mkdir()
    (folder / "prompts.csv").write_text("prompt\nwhy\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        GlobalHydra.instance().clear()
        with initialize_config_module("conf", version_base="1.3"):
            yield


def choices() -> list[list[str]]:
    """Overrides of as few configurations as use every file of conf/: the first of each group, the second, and so on."""
    slots: dict[str, list[list[str]]] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        group, name = path.parent.name, path.stem
        own = ["reward@proxy", "reward@gold"] if group == "reward" else [group]
        for slot in [f"policy@{name}"] if f"{group}={name}" in ("policy=dpo", "policy=ppo") else own:
            slots.setdefault(slot, []).append([f"{slot}={name}", *NEEDED.get(f"{slot}={name}", [])])
    most = max(len(each) for each in slots.values())
    return [[text for each in slots.values() for text in each[number % len(each)]] for number in range(most)]


@pytest.fixture(scope="module")
def configurations() -> Iterator[list[dict[str, Any]]]:
    """Every configuration as plain, resolved values: on a machine that is fast in bfloat16, and on one that is not."""
    found: list[Any] = []
    for overrides in choices():
        config = compose("config", overrides)
        assert OmegaConf.missing_keys(config) == set(), f"{overrides} leave keys of their schemas without a value"
        for dtype, precision in (("bfloat16", "bf16-mixed"), ("float32", "32")):
            answer("fast_dtype", dtype)
            answer("fast_precision", precision)
            found.append(OmegaConf.to_container(config, resolve=True))
    yield found
    register_dtypes()


def answer(resolver: str, value: str) -> None:
    OmegaConf.register_new_resolver(resolver, lambda device: value, replace=True)


def targets(value: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings with a `_target_` in a configuration, outermost first."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield value
        for part in value.values():
            yield from targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from targets(part)


def said_in(configurations: list[dict[str, Any]]) -> Said:
    found: Said = {}
    for each in itertools.chain.from_iterable(targets(configuration) for configuration in configurations):
        fields = found.setdefault(each["_target_"], {})
        for name, value in each.items():
            if name != "_target_" and value not in fields.setdefault(name, []):
                fields[name].append(value)
    return found


def is_setting(value: Any) -> bool:
    """Not another stage, a file, or a part that is a class of its own."""
    if isinstance(value, str):
        return not value.startswith((STAGE, FILE))
    return not any(True for _ in targets(value))


def class_of(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def differing(kind: Any, said: Mapping[str, list[Any]]) -> dict[str, str]:
    """Class.field → what is wrong: defaults of a class that are none of the values that YAML says for the field."""
    found = {}
    for field in dataclasses.fields(kind):
        values = [value for value in said.get(field.name, []) if is_setting(value)]
        if not values or not field.init:
            continue
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            continue
        if default not in values:
            found[f"{kind.__name__}.{field.name}"] = f"is {default!r}, but YAML says {values}"
    return found


def test_a_class_has_the_default_that_the_yaml_files_say(configurations: list[dict[str, Any]]) -> None:
    said = said_in(configurations)
    assert len(said) > 30
    found: dict[str, str] = {}
    for target, fields in said.items():
        if dataclasses.is_dataclass(kind := class_of(target)):
            found |= differing(kind, fields)
    known = LEFT_OUT.keys() | NOTHING_GIVEN.keys() | OFF.keys()
    assert known <= found.keys()  # what has YAML's value needs no exception any more
    assert all(found[name].startswith(("is None", "is ''", "is []", "is {}")) for name in NOTHING_GIVEN)
    assert {name: what for name, what in found.items() if name not in known} == {}


def test_what_a_file_leaves_out_is_left_out_by_one(configurations: list[dict[str, Any]]) -> None:
    for name in LEFT_OUT:
        kind, _, field = name.partition(".")
        whole = [each for one in configurations for each in targets(one) if each["_target_"].endswith(f".{kind}")]
        assert any(field not in each for each in whole), name
        assert any(field in each for each in whole), name


@dataclasses.dataclass
class Trained:
    """A class that conf/ could name."""

    data: str
    rate: float = 0.1
    head: str = "mlp"
    columns: list[str] = dataclasses.field(default_factory=lambda: ["proxy"])
    model: str | None = None


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"rate": [0.1], "head": ["mlp", "linear"], "columns": [["proxy"]]}, set()),
        ({"data": ["anything"]}, set()),  # the class has no default of it
        ({"model": [f"{STAGE}model"]}, set()),  # a reference is no setting
        ({"rate": [0.2]}, {"Trained.rate"}),
        ({"head": ["linear", "vocab"]}, {"Trained.head"}),
        ({"columns": [["gold"]]}, {"Trained.columns"}),
        ({"model": ["a name"]}, {"Trained.model"}),
    ],
)
def test_a_default_that_yaml_does_not_say_is_found(said: dict[str, list[Any]], names: set[str]) -> None:
    assert differing(Trained, said).keys() == names


def own_default(field: "dataclasses.Field[Any]") -> Any:
    """A schema's default; None where it is no value: missing, nothing at all, or a reference to another key."""
    value = field.default
    if value is dataclasses.MISSING:
        value = field.default_factory() if field.default_factory is not dataclasses.MISSING else MISSING
    reference = isinstance(value, str) and value.startswith("${")
    return None if value in (MISSING, None, "", [], {}) or reference else value


@pytest.mark.parametrize("schema", [kind for kinds in SCHEMAS.values() for kind in kinds.values()])
def test_a_schema_holds_no_default_values(schema: type) -> None:
    assert {f.name: found for f in dataclasses.fields(schema) if (found := own_default(f)) is not None} == {}  # type: ignore[arg-type]


def test_a_schema_of_the_configuration_itself_says_what_the_configuration_says(
    configurations: list[dict[str, Any]],
) -> None:
    for key, schema in WHOLE.items():
        here = configurations[0][key] if key else configurations[0]
        for field in dataclasses.fields(schema):  # type: ignore[arg-type]
            default = own_default(field)
            assert default is None or here[field.name] == default, f"{key}.{field.name}"
