"""The settings of how requests travel."""

from typing import Any

import pytest

from stages.errors import BadInput
from stages.servers.traffic import Traffic


def test_the_settings_that_a_user_starts_with_can_be_used() -> None:
    Traffic().check()
    Traffic(rpm=60, tpm=10_000, max_cost=5.0, max_cost_run=20.0, account="study", batch=True).check()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"concurrency": 0}, "runtime.concurrency: 0 is not a positive number"),
        ({"rpm": -1}, "runtime.rpm: -1 is not a positive number"),
        ({"timeout": 0.0}, "runtime.timeout: 0.0 is not a positive number"),
        ({"longest_wait": -1.0}, "runtime.longest_wait: -1.0 is not a number of seconds, 0 or more"),
        ({"max_cost": -0.5}, "runtime.max_cost: -0.5 is not a number of dollars, 0 or more"),
        ({"max_cost_run": 1.0}, "runtime.account: is empty; name the account that max_cost_run is a limit of"),
        ({"attempts": "eight"}, "runtime.attempts: 'eight' is not a whole number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as refused:
        Traffic(**changes).check()
    assert str(refused.value) == line


def test_an_account_that_is_named_by_a_number_is_a_name() -> None:
    assert Traffic(account=2026).account == "2026"  # type: ignore[arg-type]
