"""A key of yours appears in nothing that a judging run says or writes."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from tests.stages.judge.judging import api_judge, longer_wins, write_methods
from tests.stages.servers.loopback import Fault, Loopback, is_preflight
from tests.stages.servers.sending import quick

KEY = "sk-planted-5f0e9c1a7b"


@pytest.mark.parametrize("case", ["good", "echoing", "refused", "bad_item", "lost"])
def test_a_key_appears_nowhere(tmp_path: Path, run_stage, monkeypatch, caplog, capfd, case: str) -> None:
    monkeypatch.setenv("PLANTED", KEY)
    caplog.set_level(logging.DEBUG)

    def respond(body: dict[str, Any], n: int) -> Any:
        if case == "refused":
            return Fault("status", 401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
        if case != "good" and not is_preflight(body):
            if case == "lost":
                return Fault("status", 500, body={"error": {"message": f"crash with Bearer {KEY}"}})
            if case == "bad_item":
                return Fault("status", 400, body={"error": {"message": f"bad header Bearer {KEY}"}})
            return longer_wins(body, n) | {"echo": {"authorization": f"Bearer {KEY}"}}
        return longer_wins(body, n)

    payloads = write_methods(tmp_path, ["aa", "b"], ["c", "dd"])
    with Loopback(respond) as server:
        judge = api_judge(server.base_url, api_key_env="PLANTED", runtime=quick(attempts=2), max_unreachable=1.0)
        said = repr(judge)
        try:
            run_stage(payloads, {"main": judge})
        except BadInput as error:
            import traceback

            said += str(error) + repr(error) + "".join(traceback.format_exception(error))
        assert any(f"Bearer {KEY}" in h.values() for h in server.headers)  # it was used
    output = capfd.readouterr()
    said += caplog.text + output.out + output.err
    said += "\0".join(arg.decode() for arg in Path(f"/proc/{os.getpid()}/cmdline").read_bytes().split(b"\0"))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            said += path.read_bytes().decode("utf-8", "replace")
    assert len(said) > 1000
    assert KEY not in said
    assert ("[key]" in said) == (case != "good")  # what the server echoed was taken out, not lost
