"""What follows the verb, sorted; and errors on one line."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pipeline.errors import UsageError
from tilt.command_line import CommandLine, one_line


def test_flags_overrides_and_words_stand_in_any_order() -> None:
    line = CommandLine.parsed(["a=1", "--keep-runs", "3d", "sft", "-m", "~b", "-cn", "toy", "--dry-run", "+c=x y"])
    assert line.hydra == ["-m", "-cn", "toy", "a=1", "~b", "+c=x y"]
    assert (line.words, line.own, line.values) == (["sft"], {"--dry-run"}, {"--keep-runs": "3d"})


def test_a_budget_is_an_override() -> None:
    line = CommandLine.parsed(["--max-cost", "2.5", "method=vas"])
    assert (line.hydra, line.words, line.values) == (["max_cost=2.5", "method=vas"], [], {})


def test_hydras_info_takes_a_word_and_an_override_after_it_stays_one() -> None:
    assert CommandLine.parsed(["--info", "plugins"]).hydra == ["--info", "plugins"]
    assert CommandLine.parsed(["-i", "a=1"]).hydra == ["-i", "a=1"]


@pytest.fixture
def composed(toy):
    """Composes the toy's configuration with overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(toy.path / "conf"), version_base="1.3"):
        yield lambda *overrides: compose("toy_alone", list(overrides))


@pytest.fixture
def alone(toy) -> None:
    """A configuration that needs nothing that `tilt` registers."""
    (toy.path / "conf/toy_alone.yaml").write_text("voice: {word: hello, loud: 1}\n")
    (toy.path / "conf/voice").mkdir()
    (toy.path / "conf/voice/deep.yaml").write_text("word: low\n")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("voice.wrod=x", "voice.wrod: there is no such key; did you mean 'word'?"),
        ("+voice=depe", "voice: there is no 'depe'; did you mean 'deep'? (available: deep)"),
        ("loud=1", "loud: there is no such key"),
        ("voice=deep", "voice: there is no such key; to add it anyway, write +voice=…"),
    ],
)
def test_what_hydra_refuses_is_one_line_with_the_key(composed, override: str, line: str) -> None:
    with pytest.raises(Exception, match=r".") as refused:
        composed(override)
    assert one_line(refused.value) == line


def test_our_own_errors_are_shown_as_they_are_and_others_by_their_first_line() -> None:
    assert one_line(UsageError("store: no")) == "store: no"
    assert one_line(ValueError("\n  first\nsecond")) == "first"
    assert one_line(ValueError()) == "ValueError"


def test_text_that_is_not_yaml_is_named_with_its_line() -> None:
    with pytest.raises(yaml.MarkedYAMLError) as refused:
        yaml.safe_load("a: 1\nb: [1\n")
    assert one_line(refused.value).startswith("<unicode string>, line 3: expected")
