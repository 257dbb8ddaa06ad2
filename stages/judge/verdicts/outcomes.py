"""How the question to a judge can end: with a verdict, without having to ask, or in one of the failures."""

VERDICT = "verdict"
IDENTICAL = "identical"
"""Both responses are the same: the preference is 1.5 by definition, and nobody was asked."""
UNREADABLE = "unreadable"
"""The answer is there, but it holds no verdict that can be read."""
ASK_AGAIN = (
    "refusal",
    "filtered",
    "empty",
    UNREADABLE,
    "truncated",
    "missing_logprobs",
    "no_preference",
    "wrong_model",
)
"""An answer came and was paid for, but it holds no verdict. The question is asked again; if that does not help, it
counts as failed."""
FAILURES = (*ASK_AGAIN, "bad_request", "unreachable", "too_long")
"""All outcomes without a verdict. `bad_request`: the server refuses this question; `unreachable`: all attempts to
reach the server failed; `too_long`: the question was never sent."""
