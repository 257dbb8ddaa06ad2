"""The fields of a model that judges, and the request that it makes of them."""

from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from tests.stages.judge.judging import api_judge, write_methods
from tests.stages.servers.loopback import MODEL
from tests.stages.servers.sending import quick


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"base_url": "http://user:secret@host/v1"}, "judges.main.base_url", "do not belong here"),
        ({"base_url": "host:80"}, "judges.main.base_url", "no http"),
        ({"mode": "vibes"}, "judges.main.mode", "logprob, structured, text"),
        ({"template": "missing"}, "judges.main.template", "hardened"),
        ({"api_key_env": "NO_SUCH_KEY"}, "judges.main.api_key_env", "NO_SUCH_KEY"),
        ({"pattern": "("}, "judges.main.pattern", "no regular expression"),
        ({"extra": {"temperature": 1}}, "judges.main.extra", "field of its own"),
        ({"prices": None, "runtime": quick(max_cost=1.0)}, "judges.main.runtime.max_cost", "no price is known"),
        ({"prices": {"models": {MODEL: {"in": 1}}}}, f"judges.main.prices.models.{MODEL}", "dollars for a million"),
        ({"runtime": quick(rpm=0)}, "judges.main.runtime.rpm", "positive"),
        ({"max_tokens": 0}, "judges.main.max_tokens", "positive"),
        ({"token_limit": "max"}, "judges.main.token_limit", "max_completion_tokens"),
        ({"top_logprobs": 1}, "judges.main.top_logprobs", "2"),
    ],
)
def test_a_field_that_cannot_be_used_is_one_line(
    tmp_path: Path, run_stage, change: dict[str, Any], field: str, says: str
) -> None:
    payloads = write_methods(tmp_path, ["a"], ["b"])
    judge = api_judge("http://127.0.0.1:9/v1", **change)
    with pytest.raises(BadInput) as refused:
        run_stage(payloads, {"main": judge})
    assert refused.value.field == field
    assert says in refused.value.problem
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
