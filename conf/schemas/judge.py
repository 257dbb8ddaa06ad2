"""Schemas of `conf/judge/`: who decides which of two responses is better."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded

SECOND_ALONE = "nobody would judge: choose a first judge, as judge=reward, or no second, judge@second_judge=none"


@dataclass
class Judge:
    """A judge: `scorer` decides, `verdicts` refers to the stage that asks it (null: nobody judges).

    `beside` is the scorer with its own order and canary, as it stands beside a first judge.
    """

    name: str = MISSING
    order: str = bounded("one of both, seeded, as_is", choices=("both", "seeded", "as_is"))
    canary: int = bounded("a number of prompts, 0 or more", least=0)
    scorer: Any = dataclasses.field(default=None, metadata={"needs": ("verdicts", SECOND_ALONE)})
    beside: Any = MISSING
    verdicts: Any = None


@dataclass
class RewardJudge(Judge):
    """A reward that judges."""

    tie: float = bounded("a difference in reward, 0 or more", least=0)


@dataclass
class ApiJudge(Judge):
    """A language model behind a server that judges: what it is asked, then how requests travel."""

    model: str = MISSING
    base_url: str = MISSING
    api_key_env: str | None = MISSING
    mode: str = bounded("one of logprob, structured, text", choices=("logprob", "structured", "text"))
    template: str = MISSING
    max_tokens: int = bounded("a positive number of tokens", least=1)
    token_limit: str = bounded(
        "one of max_tokens, max_completion_tokens", choices=("max_tokens", "max_completion_tokens")
    )
    temperature: float | None = bounded("a temperature, 0 or more", least=0)
    top_p: float | None = bounded("a probability above 0, at most 1", above=0, most=1)
    seed: int | None = MISSING
    top_logprobs: int = bounded("a number of tokens, 2 or more", least=2)
    extra: dict[str, Any] = field(default_factory=dict)
    returned_model: str = ""
    asks: int = bounded("a positive number of times", least=1)
    max_output_chars: int = bounded("a positive number of characters", least=1)
    max_unreachable: float = bounded("a share between 0 and 1", least=0, most=1)
    max_cost: float | None = bounded("an amount of dollars, 0 or more", least=0)
    concurrency: int = bounded("a positive number of requests", least=1)
    rpm: int | None = bounded("a positive number of requests a minute", least=1)
    tpm: int | None = bounded("a positive number of tokens a minute", least=1)
    timeout: float = bounded("a positive number of seconds", above=0)
    attempts: int = bounded("a positive number of sendings", least=1)
    batch: bool = MISSING
