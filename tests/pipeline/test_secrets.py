"""A secret of the environment is found wherever it stands, and never written down."""

import pytest

from pipeline.secrets import secret_in, secrets

SECRET = "sk-planted-0123456789abcdef"


def test_no_secret_of_the_environment_is_ever_written_down(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    assert toy.tilt("run", "-m", "voice.word=a,b").returncode == 0
    refused = toy.tilt("run", "voice.word=${oc.env:MY_API_KEY}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("tilt: voice.word: holds the value of $MY_API_KEY")
    assert SECRET not in refused.stdout + refused.stderr
    held = [path for path in toy.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert held == []


def test_a_variable_is_secret_by_its_name_where_it_is_longer_than_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        ("MY_API_KEY", SECRET),
        ("hf_token", "hf_0123456789"),
        ("DB_PASSWORD", "short"),
        ("KEYBOARD", "a layout of keys"),
    ):
        monkeypatch.setenv(name, value)
    found = secrets()
    assert (found["MY_API_KEY"], found["hf_token"]) == (SECRET, "hf_0123456789")
    assert not {"DB_PASSWORD", "KEYBOARD"} & found.keys()


def test_a_secret_inside_a_longer_text_is_named_by_its_variable() -> None:
    assert secret_in(f"https://user:{SECRET}@host", {"A": "other-secret", "B": SECRET}) == "B"
    assert secret_in("https://host", {"B": SECRET}) is None
