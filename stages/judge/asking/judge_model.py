"""A model that judges, behind an OpenAI-compatible address: how it is configured, and the request made of that."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from stages.errors import BadInput
from stages.fields import check_types
from stages.judge.asking import answers
from stages.judge.asking.answers import checked_pattern
from stages.judge.asking.template import load_template
from stages.servers.prices import price_of
from stages.servers.request import checked_endpoint
from stages.servers.traffic import Traffic

OWN = {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "n", "stream"}
"""Parameters that `extra` may not hold."""


@dataclass
class JudgeModel:
    """How a model is asked, and how it has to answer."""

    name: str
    """The judge's name in tables."""
    model: str
    """The name of one fixed version; with a name that moves on to newer ones nobody can repeat the verdicts."""
    base_url: str
    mode: str
    """`logprob` (one token, AlpacaEval 2), `structured` (JSON schema, rationale first), `text` (last line)."""
    template: str
    """`alpaca_eval`, `summarisation`, `dialogue`, `hardened`, or a file of your own (`${file:PATH}`)."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null: the server needs none."""
    max_tokens: int = 1
    """Tokens the judge may write: 1 for logprob, room for a rationale otherwise."""
    token_limit: str = "max_completion_tokens"
    """What this server calls that limit: `max_completion_tokens` or `max_tokens`."""
    temperature: float | None = 0.0
    """null, here and below: it is not sent, for models that refuse the parameter."""
    top_p: float | None = 1.0
    seed: int | None = None
    top_logprobs: int = 5
    extra: dict[str, Any] = field(default_factory=dict)
    """Further parameters of the request, as the server spells them: `{reasoning_effort: low}`."""
    returned_model: str = ""
    """How the server names the model in its answers, where that differs from `model`."""
    template_seed: int = 0
    """Seed of the random words that fence off the outputs."""
    pattern: str = answers.PATTERN
    """text: searched for in the answer's last line; its group is A, B or tie."""
    asks: int = 3
    """How often a question is asked at most, where answers hold no verdict."""
    max_output_chars: int = 40_000
    """A longer response is never sent: outcome `too_long`."""
    max_unreachable: float = 0.02
    """Share of questions that may stay without an answer after all retries. With more the run fails; run it again."""
    prices: dict[str, Any] | None = None
    """`{as_of, models: {name: {input, output, batch}}}` in dollars for a million tokens; null: none is known."""
    runtime: Traffic = field(default_factory=Traffic)

    @property
    def answers_as(self) -> str:
        """The name that the server has to give in its answers."""
        return self.returned_model or self.model

    def check(self) -> None:
        """Raises BadInput for every field that cannot be used, as far as that shows without a network."""
        check_types(self)
        if not self.model.strip():
            raise BadInput("model", "is empty; name a model that the server has")
        checked_endpoint(self.base_url)
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            # Not shown: it may be the key itself.
            raise BadInput("api_key_env", "is not the name of an environment variable; name the one that holds the key")
        load_template(self.template, self.mode)
        if self.token_limit not in ("max_tokens", "max_completion_tokens"):
            raise BadInput("token_limit", f"{self.token_limit!r} is neither max_completion_tokens nor max_tokens")
        if self.mode == "logprob" and self.top_logprobs < 2:
            raise BadInput("top_logprobs", f"{self.top_logprobs} cannot hold both tokens; the least is 2")
        if clash := sorted(set(self.extra) & (set(self._own_body([], 0)) | OWN)):
            raise BadInput("extra", f"{clash[0]} has a field of its own")
        try:
            json.dumps(self.extra, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise BadInput("extra", f"cannot be sent as JSON: {error}") from None
        checked_pattern(self.pattern)
        self.runtime.check()
        for name in ("max_tokens", "asks", "max_output_chars"):
            if getattr(self, name) < 1:
                raise BadInput(name, f"{getattr(self, name)} is not a positive number")
        if not 0 <= self.max_unreachable <= 1:
            raise BadInput("max_unreachable", f"{self.max_unreachable} is not a share between 0 and 1")
        price = price_of(self.model, self.prices)
        for name in ("max_cost", "max_cost_run"):
            if getattr(self.runtime, name) is not None and price is None:
                raise BadInput(
                    f"runtime.{name}",
                    f"no price is known for {self.model}, so no limit can be kept; add it to `prices` or unset {name}",
                )

    def body(self, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
        """The request as it goes over the wire: every sampling parameter is in it."""
        return self._own_body(messages, sample) | dict(self.extra)

    def _own_body(self, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": messages, self.token_limit: self.max_tokens, "n": 1}
        for name in ("temperature", "top_p"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.seed is not None:
            body["seed"] = self.seed + sample
        if self.mode == "logprob":
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.mode == "structured":
            schema = {"name": "verdict", "strict": True, "schema": answers.SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body
