"""Heads over the vocabulary on a lane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.decode.guides.vocab_value import VocabValue
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint
from stages.learn.values.vocab_head import VocabHead


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_head_of_another_vocabulary_is_refused(policy: LoadedLM, tiny_model: Path, tmp_path: Path) -> None:
    VocabHead(size=32, vocabulary=7, reward="proxy", layer=2, trunk=fingerprint(tiny_model)).save(tmp_path)
    assert line(lambda: VocabValue(tmp_path).open(Lanes(policy), Sampling())) == (
        f"guide.folder: the value model in {tmp_path} scores 7 tokens, but the model {policy.folder} has "
        f"{policy.vocabulary}; train one for it"
    )
