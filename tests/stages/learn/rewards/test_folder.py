"""The settings of a reward model, and how a folder of another kind is refused."""

from pathlib import Path

import pytest

from stages.errors import BadInput
from stages.learn.rewards.folder import read_settings, write_settings


def test_settings_are_read_as_they_were_written(tmp_path: Path):
    settings = {"layer": 3, "terms": ["a", "b"]}
    write_settings(tmp_path, "probe", settings)
    assert read_settings(tmp_path, "probe") == settings
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path):
    write_settings(tmp_path, "probe", {})
    with pytest.raises(BadInput, match=r"^folder: .* holds no tfidf\.json; train it with stage `tfidf`$"):
        read_settings(tmp_path, "tfidf")
