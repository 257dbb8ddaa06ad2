"""What judging will ask and may cost, said before anything has run. Needs no network and imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.errors import BadInput
from stages.judge.asking.template import load_template
from stages.servers.prices import price_of

CHARACTERS_A_TOKEN = 4
"""In English text, roughly."""
TEMPLATE_CHARACTERS = 1500
"""Of a template that cannot be read yet."""


@dataclass
class Expected:
    """How much there will be to judge, as far as the configuration knows. Only the cost is worked out from it."""

    parts: dict[str, Any] = field(default_factory=dict)
    """Prompts of each part: a number, or a mapping with `size`."""
    samples: int = 1
    """Responses a prompt."""
    response_tokens: int = 24
    """Of one response, at most."""

    def items(self, parts: Sequence[str]) -> int | None:
        """Pairs of responses in the given parts (empty: all); None where a part's size is not known.

        >>> Expected({"train": 9, "test": {"size": 64}}, samples=2).items(["test"])
        128
        """
        known = {name: size.get("size") if isinstance(size, Mapping) else size for name, size in self.parts.items()}
        sizes = [known.get(name) for name in parts or known]
        return self.samples * sum(int(s) for s in sizes if s is not None) if sizes and None not in sizes else None


@dataclass(frozen=True)
class Cost:
    """What one judge will be asked and may cost."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    """US dollars; None where the price is not known, and `note` says so."""
    note: str


def expected_cost(
    judge: Any,
    *,
    items: int,
    order: str = "both",
    canary: int = 0,
    instruction_characters: float = 250,
    output_characters: float = 1000,
) -> Cost:
    """Requests, tokens and dollars of one judge, from its configuration and how much there is to judge.

    `judge`: an `ApiJudge`, or its fields as a mapping; a judge without a `model` (the reward) asks nobody. `items`:
    pairs of responses. `canary`: pairs with the null model. The characters are means, of an instruction and of *one*
    output; those of the template are added. A token counts as 4 characters. Every answer is taken to be as long as it
    may be. Questions that are asked again are not foreseen, and answers that are recorded already are not looked up.

    >>> table = {"as_of": "2026-04", "models": {"some-judge": {"input": 10.0, "output": 30.0}}}
    >>> e = expected_cost({"model": "some-judge", "prices": table, "max_tokens": 1}, items=805, order="seeded")
    >>> e.requests, e.prompt_tokens, e.dollars  # 805 · (250 + 2·1000 + 1500) / 4 tokens in, 805 out
    (805, 754688, 7.57103)
    """
    model = _field(judge, "model")
    if not model:
        return Cost(0, 0, 0, 0.0, "asks nobody")
    requests = (items + canary) * (2 if order == "both" else 1)
    characters = instruction_characters + 2 * output_characters + _template_characters(judge)
    prompt, completion = round(requests * characters / CHARACTERS_A_TOKEN), requests * _field(judge, "max_tokens", 0)
    table = _field(judge, "prices")
    price = price_of(str(model), table)
    if price is None:
        return Cost(requests, prompt, completion, None, f"no price is known for {model}: no estimate in dollars")
    batch = bool(_field(_field(judge, "runtime", {}), "batch", False))
    as_of = (table or {}).get("as_of", "an unknown date")
    return Cost(
        requests, prompt, completion, price.of(prompt, completion, batch=batch), f"{model} at prices of {as_of}"
    )


def _field(holder: Any, name: str, otherwise: Any = None) -> Any:
    found = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    return otherwise if found is None else found


def _template_characters(judge: Any) -> float:
    """Length of the judge's template and of its answer format; a usual length where it cannot be read yet."""
    name, mode = _field(judge, "template", ""), _field(judge, "mode", "")
    try:
        template = load_template(str(name).removeprefix("file://"), str(mode))
    except BadInput:
        return TEMPLATE_CHARACTERS
    return len(template.system) + len(template.user) + len(template.answer)
