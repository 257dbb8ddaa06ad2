"""The sweeper: blocks of a file become points, and the command line has the last word."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.tilt.sweeper import expand, read_blocks
from pipeline.errors import UsageError


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
