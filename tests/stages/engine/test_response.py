"""A response's text, and where a stopping string ends it."""

from typing import Any

from stages.engine.loaded import LoadedLM


def test_a_stopping_string_ends_the_response_and_is_cut_from_its_text(decode: Any, policy: LoadedLM) -> None:
    """Each free response is cut where the string first appears; tokens up to there stay the same."""
    free = decode(samples=4, max_new_tokens=8)
    stop = "e"
    cut = decode(samples=4, max_new_tokens=8, stop=[stop, "never to be seen"])
    assert {row.finished for row in cut} == {True, False}
    for whole, short in zip(free, cut, strict=True):
        assert whole.token_ids[: len(short.token_ids)] == short.token_ids
        assert short.text == whole.text.split(stop)[0]
        assert short.finished == (stop in whole.text or whole.finished)
        if stop in whole.text:
            assert stop in str(policy.tokenizer.decode(short.token_ids, skip_special_tokens=True))
            assert stop not in str(policy.tokenizer.decode(short.token_ids[:-1], skip_special_tokens=True))
