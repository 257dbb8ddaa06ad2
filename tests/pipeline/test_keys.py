"""Keys: equal configurations share one, different ones never do."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import canonical, changed_files, digest, file_digest, file_stamp, preimage

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_the_order_of_fields_does_not_count(config: dict) -> None:
    assert digest(config) == digest(dict(reversed(config.items())))


@given(plain, plain)
def test_different_values_have_different_keys(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == (repr(canonical(a)) == repr(canonical(b)))


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_a_number_has_one_key_however_it_is_spelt(number: int) -> None:
    assert digest({"beta": number}) == digest({"beta": float(number)})


def test_true_is_not_one_and_text_is_not_a_number() -> None:
    assert len({digest(value) for value in (True, 1, "1", "true", [1], None)}) == 6


def test_the_two_spellings_of_an_accented_letter_are_one() -> None:
    assert digest("caf\u00e9") == digest("cafe\u0301")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_no_json_can_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        digest({"beta": value})


def test_devices_rows_and_cores_are_outside_the_key() -> None:
    config = {"beta": 1, "reward": {"folder": "x", "device": "a"}, "runtime": {"rows": 1}, "resources": {"cores": 1}}
    other = {"beta": 1, "reward": {"folder": "x", "device": "b"}, "runtime": {"rows": 9}}
    assert preimage("a.B", config, "code", []) == preimage("a.B", other, "code", [])
    assert preimage("a.B", config | {"beta": 2}, "code", []) != preimage("a.B", config, "code", [])


def test_files_count_by_content_and_folders_by_names_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("1")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    (tmp_path / "b/x").rename(tmp_path / "b/y")
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")
    # sha256 of the one byte "1"
    assert file_digest(tmp_path / "a/x") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def seen(path: Path) -> dict[str, tuple[str, str]]:
    return {str(path): (file_stamp(path), file_digest(path))}


def test_a_touched_file_is_not_an_edited_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("first\n")
    before = seen(path)
    os.utime(path, (1, 1))
    assert changed_files(before) == []
    path.write_text("other\n")  # the same size
    assert changed_files(before) == [str(path)]
    path.unlink()
    assert changed_files(before) == [str(path)]


def test_a_folder_is_edited_where_a_file_below_it_is_edited_added_or_renamed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("1")
    before = seen(tmp_path / "model")
    assert changed_files(before) == []
    (tmp_path / "model/notes").write_text("")
    assert changed_files(before) == [str(tmp_path / "model")]
    (tmp_path / "model/notes").unlink()
    assert changed_files(before) == []
    (tmp_path / "model/weights").rename(tmp_path / "model/weight")
    assert changed_files(before) == [str(tmp_path / "model")]
