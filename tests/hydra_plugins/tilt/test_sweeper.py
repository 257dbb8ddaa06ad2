"""A sweep is a list of blocks, each a product of choices."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.tilt.sweeper import expand, read_blocks
from pipeline.errors import UsageError


def written(folder: Path, text: str) -> str:
    (folder / "sweep.yaml").write_text(text)
    return str(folder / "sweep.yaml")


def test_a_block_is_read_as_overrides_in_hydras_spelling(tmp_path: Path) -> None:
    text = "blocks:\n- {method: base}\n- {method: vas, method.beta: [1, 2.5], a.on: true, a.off: [null]}\n"
    assert read_blocks(written(tmp_path, text)) == [
        {"method": ["method=base"]},
        {
            "method": ["method=vas"],
            "method.beta": ["method.beta=1", "method.beta=2.5"],
            "a.on": ["a.on=true"],
            "a.off": ["a.off=null"],
        },
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "has no list of `blocks`"),
        ("blocks: []", "has no list of `blocks`"),
        ("blocks: {a: 1}", "has no list of `blocks`"),
        ("blocks: [method]", "blocks[0]: method is not a mapping from override to value or list of values"),
        ("blocks: [{a: 1}, {b: []}]", "blocks[1]: b has no value to choose from"),
    ],
)
def test_what_is_no_sweep_is_refused_by_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_blocks(written(tmp_path, text))
    assert str(refused.value).startswith("sweep: ")
    assert str(refused.value).endswith(problem)


def test_a_sweep_that_is_not_there_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^sweep: there is no 'dmeo'; did you mean 'demo'\?"):
        read_blocks("dmeo")


BLOCKS = [{"method": ["method=base"]}, {"method": ["method=vas"], "beta": ["beta=1", "beta=2"]}]


def test_the_sweep_is_the_union_of_the_blocks_products() -> None:
    assert list(expand(BLOCKS, {})) == [("method=base",), ("method=vas", "beta=1"), ("method=vas", "beta=2")]


def test_a_choice_takes_the_place_of_its_key_where_a_block_has_it() -> None:
    assert list(expand(BLOCKS, {"beta": ["beta=3"]})) == [("method=base",), ("method=vas", "beta=3")]


def test_a_choice_of_no_block_is_added_to_all() -> None:
    assert list(expand(BLOCKS, {"seed": ["seed=0", "seed=1"]})) == [
        *[("method=base", f"seed={n}") for n in (0, 1)],
        *[("method=vas", f"beta={b}", f"seed={n}") for b in (1, 2) for n in (0, 1)],
    ]


def test_equal_points_are_one() -> None:
    assert list(expand(BLOCKS, {"method": ["method=base"], "beta": ["beta=1"]})) == [
        ("method=base",),
        ("method=base", "beta=1"),
    ]
    assert list(expand([BLOCKS[0], BLOCKS[0]], {})) == [("method=base",)]


def test_only_discrete_choices_are_swept(toy) -> None:
    outcome = toy.tilt("plan", "-m", "voice.seconds=interval(0,1)")
    assert outcome.returncode == 2
    assert outcome.stderr == "tilt: voice.seconds: only discrete choices can be swept here (a,b,c or range(…))\n"


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
