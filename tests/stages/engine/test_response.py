"""A response's text, and where a stopping string ends it."""

from typing import Any

from stages.engine.loaded import LoadedLM
from stages.engine.response import Response, stops, text_of
from stages.engine.sampling import Sampling


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


def ids_of(policy: LoadedLM, text: str) -> list[int]:
    return list(policy.tokenizer(text)["input_ids"])


def test_a_text_is_cut_before_the_first_of_several_stopping_strings(policy: LoadedLM) -> None:
    """Of the three, `that` comes first in the list and `film` first in the text."""
    ids = [*ids_of(policy, "a dull film that never ends"), policy.eos]
    assert text_of(policy.tokenizer, Sampling(stop=["that", "film", "city"]), ids) == "a dull "
    assert text_of(policy.tokenizer, Sampling(stop=["city"]), ids) == "a dull film that never ends"  # EOS is no text
    assert text_of(policy.tokenizer, Sampling(), []) == ""


def test_a_stopping_string_over_the_border_of_tokens_ends_the_row_with_its_last_token(policy: LoadedLM) -> None:
    ids = ids_of(policy, "an honest story told with warmth")
    before, last = (str(policy.tokenizer.decode([one])) for one in ids[-2:])
    sampling = Sampling(stop=[before[-1] + last[0]])
    assert not stops(policy.tokenizer, sampling, ids[:-1])
    assert stops(policy.tokenizer, sampling, ids)


def test_a_letter_of_two_bytes_is_there_with_its_second_token(policy: LoadedLM) -> None:
    """No merge of the tokenizer holds ä: it is two tokens, C3 and A4."""
    ids = ids_of(policy, "so ä")
    assert len(ids_of(policy, "ä")) == 2
    assert not stops(policy.tokenizer, Sampling(stop=["ä"]), ids[:-1])
    assert stops(policy.tokenizer, Sampling(stop=["ä"]), ids)


def test_only_the_end_is_looked_at(policy: LoadedLM) -> None:
    """A row would have ended where the string was new; a token is a byte or more, so the last few tokens are enough."""
    ids = ids_of(policy, "loud" + " and empty" * 20)
    assert not stops(policy.tokenizer, Sampling(stop=["loud"]), ids)
    assert stops(policy.tokenizer, Sampling(stop=["loud"]), ids_of(policy, "so loud"))
    assert not stops(policy.tokenizer, Sampling(), ids)


def test_a_response_follows_its_sample_s_random_numbers() -> None:
    assert [Response(4, sample).stream for sample in (0, 3)] == [0, 3]
