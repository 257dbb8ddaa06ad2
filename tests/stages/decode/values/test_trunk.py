"""Which model's states a head reads."""

import pytest

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput


def refusal(guide: ScalarValue, policy: LoadedLM) -> BadInput:
    with pytest.raises(BadInput) as error:
        guide.open(Lanes(policy), Sampling())
    assert "\n" not in error.value.problem
    return error.value


def test_a_value_of_another_trunk_is_refused(policy: LoadedLM, make_head) -> None:
    error = refusal(ScalarValue(make_head(trunk="0" * 64)), policy)
    assert error.field == "guide.folder"
    assert "another trunk" in error.problem
