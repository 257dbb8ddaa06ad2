"""Preferences from the two tokens with which an AlpacaEval-style judge answers. Pure arithmetic; no model is called.

A preference lies in 1…2 and is about the candidate, whatever was shown first: 1 = the reference is better, 2 = the
candidate is. The judge answers with one token, `m` for the output shown first and `M` for the one
shown second; the preference is the probability that its first token puts on the candidate, plus one:

    reference shown first:  2 − P(m) / (P(m) + P(M))        (AlpacaEval 2's logprob parser)
    candidate shown first:  3 − that

Source: Li et al. 2023 (AlpacaEval) and its `weighted_alpaca_eval_gpt4_turbo` annotator.
"""

import math
from collections.abc import Iterable

FIRST, SECOND = "m", "M"
"""The judge's tokens for the output shown first and second."""


class NoVerdict(ValueError):
    """The answer holds no preference. It then counts as a failure of this question; it is not guessed or dropped."""


def token_logprobs(top: Iterable[tuple[str, float]]) -> tuple[float | None, float | None]:
    """Log-probabilities in nats of `m` and `M` among the (token, log-probability) pairs of the answer's first token.

    None where a token is absent. Tokens are compared exactly: ` m`, `m.` and `model_m` are other tokens.

    >>> token_logprobs([("M", -0.1), ("The", -2.5)])
    (None, -0.1)
    """
    found = dict(top)
    return found.get(FIRST), found.get(SECOND)


def preference_from_logprobs(
    first: float | None, second: float | None, *, candidate_first: bool, field: str = "logprobs"
) -> float:
    """Preference in 1…2 from the log-probabilities (nats) of the tokens for the output shown first and second.

    None is an absent token: probability 0. Raises NoVerdict where both are absent or one is not a log-probability.

    >>> round(preference_from_logprobs(-0.10536, -2.30259, candidate_first=False), 4)  # 2 − 0.9 / (0.9 + 0.1)
    1.1
    >>> round(preference_from_logprobs(-0.10536, -2.30259, candidate_first=True), 4)  # the same page, switched
    1.9
    >>> preference_from_logprobs(None, -0.5, candidate_first=False)  # 2 − 0 / (0 + P(M))
    2.0
    """
    for logprob in (first, second):
        if logprob is not None and (math.isnan(logprob) or logprob > 1e-3):  # servers round; 1 + 1e-3 is no probability
            raise NoVerdict(f"{field}: {logprob} is not a log-probability")
    a = -math.inf if first is None else first
    b = -math.inf if second is None else second
    if a == b == -math.inf:
        raise NoVerdict(f"{field}: neither {FIRST!r} nor {SECOND!r} is among the likeliest first tokens")
    share = 1 / (1 + math.exp(b - a)) if b <= a else math.exp(a - b) / (1 + math.exp(a - b))  # P(m) / (P(m) + P(M))
    return 1.0 + share if candidate_first else 2.0 - share


def preference_from_choice(choice: str, *, candidate_first: bool) -> float:
    """Preference of a judge that answered with one of the two tokens, or `tie`: 1.0, 1.5 or 2.0.

    >>> preference_from_choice("m", candidate_first=True)  # the first output, which is the candidate
    2.0
    """
    if choice == "tie":
        return 1.5
    if choice not in (FIRST, SECOND):
        raise NoVerdict(f"choice: {choice!r} is neither {FIRST!r}, {SECOND!r} nor 'tie'")
    return 2.0 if (choice == FIRST) == candidate_first else 1.0
