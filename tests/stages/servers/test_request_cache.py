"""Recorded answers: found again whatever happened while they were written, by threads, processes and hosts."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from stages.servers.request_cache import RequestCache

KEY = ["%064x" % (i * 2**200 + i) for i in range(10)]


def test_an_answer_is_found_by_another_cache(tmp_path: Path) -> None:
    one, other = RequestCache(tmp_path), RequestCache(tmp_path)
    one.intend(KEY[0], {"body": {}})
    one.record(KEY[0], {"id": "a", "text": "ü\u2028\n"})
    assert other.get(KEY[0]) is None
    other.refresh()
    assert other.get(KEY[0]) == {"id": "a", "text": "ü\u2028\n"}
    assert RequestCache(tmp_path).get(KEY[0]) == one.get(KEY[0])


def test_a_line_torn_at_any_byte_is_ignored_and_all_others_are_kept(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "whole")
    for key in KEY[:2]:
        cache.intend(key, {})
        cache.record(key, {"text": key[:5]})
    cache.close()
    (written,) = (tmp_path / "whole").glob("*.jsonl")
    data = written.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    folder = tmp_path / "torn"
    folder.mkdir()
    for cut in range(last, len(data)):
        (folder / "a.jsonl").write_bytes(data[:cut])
        torn = RequestCache(folder)
        assert torn.get(KEY[0]) == {"text": KEY[0][:5]}
        assert torn.get(KEY[1]) is None
        assert torn.unanswered(KEY[1]) == 1  # it was in flight: it may have been bought
        torn.close()


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    line = json.dumps({"kind": "answer", "key": KEY[0], "response": {"a": 1}}).encode() + b"\n"
    (tmp_path / "other-host.jsonl").write_bytes(line[:20])
    cache = RequestCache(tmp_path)
    assert KEY[0] not in cache
    with (tmp_path / "other-host.jsonl").open("ab") as stream:
        stream.write(line[20:])
    cache.refresh()
    assert cache.get(KEY[0]) == {"a": 1}


def test_a_full_disk_tears_no_later_line(tmp_path: Path, monkeypatch) -> None:
    cache = RequestCache(tmp_path)
    cache.record(KEY[0], {"a": 0})
    real = os.write

    def short(file: int, data: bytes) -> int:
        if len(data) > 30:
            return real(file, data[:30])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: short(file, data[: min(len(data), 40)]))
        with pytest.raises(OSError):
            cache.record(KEY[1], {"a": 1})
    cache.record(KEY[2], {"a": 2})
    again = RequestCache(tmp_path)
    assert [again.get(key) for key in KEY[:3]] == [{"a": 0}, None, {"a": 2}]


def test_errors_are_not_answers_and_losses_are_counted(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path)
    cache.intend(KEY[0], {})
    cache.refused(KEY[0], "500")
    assert (KEY[0] in cache, cache.unanswered(KEY[0])) == (False, 0)
    cache.intend(KEY[0], {})
    cache.lose(KEY[0], "timeout")
    cache.intend(KEY[0], {})
    cache.record(KEY[0], {})
    assert (KEY[0] in cache, cache.unanswered(KEY[0])) == (True, 1)
    cache.intend(KEY[1], {})
    assert RequestCache(tmp_path).unanswered(KEY[1]) == 1


def _hold(folder: Path, key: str, ready, seconds: float) -> None:
    cache = RequestCache(folder)
    with cache.claimed(key):
        ready.set()
        time.sleep(seconds)
        cache.record(key, {"by": "child"})


@pytest.mark.parametrize("killed", [False, True])
def test_a_claim_waits_for_another_process_and_dies_with_it(tmp_path: Path, killed: bool) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=_hold, args=(tmp_path, KEY[0], ready, 60.0 if killed else 0.6))
    child.start()
    assert ready.wait(60)
    if killed:
        assert child.pid
        threading.Timer(0.3, os.kill, (child.pid, signal.SIGKILL)).start()
    cache, start = RequestCache(tmp_path), time.monotonic()
    with cache.claimed(KEY[1]):  # another key is free
        assert time.monotonic() - start < 0.2
    with cache.claimed(KEY[0]):
        assert 0.1 < time.monotonic() - start < 20
        assert cache.get(KEY[0]) == (None if killed else {"by": "child"})
    child.join()


def test_threads_do_not_ask_the_same_at_once(tmp_path: Path) -> None:
    cache, asked = RequestCache(tmp_path), []

    def ask() -> None:
        with cache.claimed(KEY[0]):
            if cache.get(KEY[0]) is None:
                asked.append(1)
                time.sleep(0.02)
                cache.record(KEY[0], {})

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
