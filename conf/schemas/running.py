"""Schemas of `conf/executor/` and `conf/tracking/`: where stages run, and where their figures are sent."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.schemas.bounds import bounded


@dataclass
class Executor:
    """What runs the stages, and what it may use."""

    kind: str = bounded("one of local, inprocess", choices=("local", "inprocess"))
    cores: int | None = bounded("a positive number of cores", least=1)
    memory: float | None = bounded("a positive number of GiB", above=0)
    retries: int = bounded("a number of attempts, 0 or more", least=0)
    preload: list[str] = field(default_factory=list)


@dataclass
class Tracking:
    """Where figures and curves go besides the store."""

    mode: str = bounded("one of none, offline, online", choices=("none", "offline", "online"))
    project: str = MISSING
    entity: str | None = None
    finish_seconds: float = bounded("a positive number of seconds", above=0)
