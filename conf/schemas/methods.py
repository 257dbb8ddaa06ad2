"""Schemas of `conf/method/`: what a method is made of, and the numbers of each kind of method."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded

PARTS = ("implicit", "explicit", "none")


@dataclass
class Method:
    """A method is a policy, a token guide (or none) and a search (or none).

    `settings` are what its points are told apart by in tables. `value_target` is what its value learns.
    """

    name: str = MISSING
    policy: Any = MISSING
    guide: Any = None
    search: Any = None
    value_target: str = "${value.target}"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class BestOf(Method):
    """The best of n samples."""

    n: int = bounded("a positive number of samples", least=1)


@dataclass
class ScalarGuided(Method):
    """Tokens tilted by the values of the k likeliest."""

    beta: float = bounded("a finite strength, 0 or more", least=0)
    k: int = bounded("a positive number of candidates", least=1)
    outside: str = bounded("one of mean, prefix, drop", choices=("mean", "prefix", "drop"))
    force_eos_candidate: bool = MISSING


@dataclass
class CompatibleGuided(ScalarGuided):
    """The same, for methods that can do what the public code does where it departs from the paper."""

    compat: str = bounded("official, or empty", choices=("", "official"))


@dataclass
class ImplicitGuided(Method):
    """Tokens tilted by what a tuned model says against an untuned one."""

    weight: float = bounded("a finite weight, 0 or more", least=0)


@dataclass
class Chunked(Method):
    """Chunk search: W beams, K successors of each, compared every L tokens."""

    beams: int = bounded("a positive number of beams", least=1)
    successors: int = bounded("a positive number of successors", least=1)
    chunk: int | None = bounded("a positive number of tokens", least=1)
    length_normalised: bool = MISSING
    compat: str = bounded("official, or empty", choices=("", "official"))


@dataclass
class Ivg(Chunked):
    """Chunk search with a token guide: what each of them goes by is chosen by name."""

    token_by: str = bounded("one of implicit, explicit, none", choices=PARTS)
    chunk_by: str = bounded("one of implicit, explicit, none", choices=PARTS)
    guides: dict[str, Any] = field(default_factory=dict)
    scorers: dict[str, Any] = field(default_factory=dict)
    tuned: Any = MISSING
    weight: float = bounded("a finite weight, 0 or more", least=0)
    beta: float = bounded("a finite strength, 0 or more", least=0)
    k: int = bounded("a positive number of candidates", least=1)
    strengths: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
