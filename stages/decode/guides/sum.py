"""Several guides at once."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from stages.decode.parts import TokenGuide
from stages.engine.lanes import Lanes
from stages.engine.sampling import Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput


@dataclass
class Sum:
    """Adds up the tilts of several guides, each times its weight. Guides with candidates must ask for the same ones."""

    guides: list[Any]
    """`TokenGuide`s."""
    weights: list[float] | None = None
    """One each, multiplying the guide's own strength; null: all 1."""

    def check(self, field: str = "guide") -> None:
        if not self.guides:
            raise BadInput(f"{field}.guides", "no guide is named; null is the base policy")
        if self.weights is not None and len(self.weights) != len(self.guides):
            raise BadInput(
                f"{field}.weights", f"{len(self.weights)} weights for {len(self.guides)} guides; give one each"
            )
        for index, guide in enumerate(self._each()):
            guide.check(f"{field}.guides.{index}")

    def scaled(self, weight: float) -> "Sum":
        return dataclasses.replace(self, weights=[weight * one for one in self._weights()])

    def _weights(self) -> list[float]:
        return self.weights or [1.0] * len(self.guides)

    def _each(self) -> list[TokenGuide]:
        return [guide.scaled(weight) for guide, weight in zip(self.guides, self._weights(), strict=True)]

    def open(self, lanes: Lanes, sampling: Sampling, field: str = "guide") -> Terms:
        """Raises BadInput for what a guide refuses, and where two ask for different candidates."""
        self.check(field)
        terms = Terms()
        for index, guide in enumerate(self._each()):
            opened = guide.open(lanes, sampling, f"{field}.guides.{index}")
            terms.dense += opened.dense
            terms.scalar += opened.scalar
            terms.candidates = terms.candidates or opened.candidates
            if opened.candidates not in (None, terms.candidates):
                raise BadInput(
                    f"{field}.guides.{index}",
                    "its k, outside, force_eos_candidate and compat differ from those of the guide before it; "
                    "values on candidates are summed over the same ones",
                )
        return terms
