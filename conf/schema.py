"""Schemas of the configuration groups: every key's type and bounds, so that a misspelt or mistyped key is one line.

A YAML file takes its schema by `defaults: [/schema/<group>/<kind>@_here_, _self_]`. What a key does stands beside it
in the YAML files.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from conf.dtypes import register_dtypes

SECOND_ALONE = "nobody would judge: choose a first judge, as judge=reward, or no second, judge@second_judge=none"
SEAT = {"_target_": "stages.judge.seat.Seat", "judge": "${..scorer}", "order": "${..order}", "canary": "${..canary}"}
"""A second judge: the scorer, with the order and the canary of its own slot."""


def bounded(
    default: Any,
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    text: bool = False,
) -> Any:
    """A schema field that must be `what`: finite, within the bounds (a text's length) or among the choices given."""
    rule = {"what": what, "least": least, "most": most, "above": above, "choices": choices, "text": text}
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclass
class Part:
    size: int = bounded(MISSING, "a positive number of rows", least=1)
    groups: float = bounded(0.0, "a share between 0 and 1", least=0, most=1)


@dataclass
class Task:
    """Where prompts come from and how they are split."""

    table: str = MISSING
    corpus: Any = None
    parts: dict[str, Part] = field(default_factory=dict)
    text_column: str = ""
    prompt_column: str = ""
    reference_column: str = ""
    label_column: str = ""
    positive: str = ""
    negative: str = ""
    group_column: str = ""
    template: str = "{text}"
    opening_words: list[int] = field(default_factory=lambda: [3, 4])
    min_words: int = bounded(0, "a number of words, 0 or more", least=0)
    max_words: int = bounded(0, "a number of words, 0 or more (0: no limit)", least=0)
    any_of: list[str] = field(default_factory=list)
    chat: bool = False
    seed: int = bounded(0, "a whole number, 0 or more", least=0)


@dataclass
class FileTask(Task):
    file: str = MISSING


@dataclass
class Model:
    """The language model everything starts from: `load` is the stage that brings it."""

    load: Any = MISSING
    dtype: str = bounded("float32", "one of float32, bfloat16, float16", choices=("float32", "bfloat16", "float16"))
    device: str = MISSING


@dataclass
class LocalModel(Model):
    path: str = MISSING


@dataclass
class HubModel(Model):
    repo: str = MISSING
    revision: str = MISSING


@dataclass
class Policy:
    """π₀, the frozen base policy: `folder` refers to it, `train` is the stage that makes it (null: none)."""

    folder: str = MISSING
    train: Any = None
    beta: float = bounded(0.1, "a positive strength", above=0)


@dataclass
class LoraPolicy(Policy):
    """A policy trained through adapters, which are merged into it."""

    lora_rank: int = bounded(16, "a positive rank", least=1)
    lora_alpha: int = bounded(16, "a positive scale", least=1)
    top_layers: int = bounded(0, "a number of layers, 0 (all) or more", least=0)
    seed: int = bounded(0, "a whole number, 0 or more", least=0)


@dataclass
class DpoPolicy(LoraPolicy):
    """A policy tuned from π₀, beside it."""

    reward: str = MISSING
    label_smoothing: float = bounded(0.0, "a probability from 0 to below ½", least=0, most=0.499)
    length_normalised: bool = False
    pairs: int = bounded(4, "a positive number of pairs", least=1)
    margin: float = bounded(0.5, "a difference in standard deviations, 0 or more", least=0)
    learning_rate: float = bounded(5e-4, "a positive learning rate", above=0)
    batch_size: int = bounded(16, "a positive number of pairs", least=1)
    epochs: float = bounded(1.0, "a positive number of passes", above=0)
    heldout: float = bounded(0.1, "a share between 0 and 0.9", least=0, most=0.9)
    allow_truncated: bool = False


@dataclass
class PpoPolicy(LoraPolicy):
    """A policy tuned from π₀, beside it."""

    target_kl: float = bounded(0.0, "a number of nats, 0 (fixed weight) or more", least=0)
    part: str = MISSING
    iterations: int = bounded(12, "a positive number of iterations", least=1)
    batch_size: int = bounded(64, "a positive number of responses", least=1)
    minibatch: int = bounded(16, "a positive number of responses", least=1)
    epochs: int = bounded(2, "a positive number of passes", least=1)
    clip: float = bounded(0.2, "a positive bound", above=0)
    value_clip: float = bounded(0.2, "a positive bound", above=0)
    lam: float = bounded(0.95, "a number between 0 and 1", least=0, most=1)
    whitening: bool = True
    max_kl: float = bounded(0.05, "a number of nats a token, 0 (never) or more", least=0)
    learning_rate: float = bounded(1e-3, "a positive learning rate", above=0)
    value_learning_rate: float = bounded(1e-3, "a positive learning rate", above=0)
    value_width: int = bounded(256, "a positive width", least=1)


@dataclass
class SftPolicy(LoraPolicy):
    learning_rate: float = bounded(1e-3, "a positive learning rate", above=0)
    batch_size: int = bounded(8, "a positive number of sequences", least=1)
    epochs: float = bounded(1.0, "a positive number of passes", above=0)
    max_tokens: int = bounded(64, "a positive number of tokens", least=1)


@dataclass
class Tuned:
    """The tuned model of implicit guidance, π₀ being the untuned one: `folder` refers to it, `train` makes it."""

    folder: str = MISSING
    train: Any = None
    best_rollouts: Any = None
    best: int = bounded(1, "a positive number of responses", least=1)
    learning_rate: float = bounded(1e-3, "a positive learning rate", above=0)
    epochs: float = bounded(1.0, "a positive number of passes", above=0)


@dataclass
class Foresight:
    """How well the value foresees: `measured` refers to the stage that measures it (null: the report leaves it out)."""

    measured: str | None = None
    samples: int = bounded(16, "a number of responses, 2 or more", least=2)


@dataclass
class Reward:
    """`scorer` judges, `train` is the stage that makes it, `asset` the stage that brings what training starts from."""

    name: str = MISSING
    scorer: Any = MISSING
    train: Any = None
    asset: Any = None


@dataclass
class Value:
    """How the value model is trained."""

    reward: str = MISSING
    layer: int = bounded(20, "a layer, 0 (embeddings) or more", least=0)
    rewards: list[str] = field(default_factory=list)
    model: str | None = None
    head: str = bounded("linear", "one of linear, mlp, vocab", choices=("linear", "mlp", "vocab"))
    target: str = bounded(
        "td_lambda", "one of td_lambda, fudge, bellman, soft", choices=("td_lambda", "fudge", "bellman", "soft")
    )
    eta: float = bounded(1.0, "a positive η", above=0)
    lora_rank: int = bounded(0, "a rank, 0 (frozen) or more", least=0)
    lora_alpha: int = bounded(16, "a positive scale", least=1)
    top_layers: int = bounded(0, "a number of layers, 0 (all) or more", least=0)
    allow_truncated: bool = False
    width: int = bounded(256, "a positive width", least=1)
    td_lambda: float = bounded(0.95, "a number between 0 and 1", least=0, most=1)
    learning_rate: float = bounded(1e-2, "a positive learning rate", above=0)
    batch_size: int = bounded(32, "a positive number of rollouts", least=1)
    epochs: float = bounded(10.0, "a positive number of passes", above=0)
    weight_decay: float = bounded(0.0, "a weight decay, 0 or more", least=0)
    heldout: float = bounded(0.1, "a share between 0 and 0.9", least=0, most=0.9)
    seed: int = bounded(0, "a whole number, 0 or more", least=0)


@dataclass
class Method:
    """A method is a policy, a token guide and a chunk search; `settings` are what its points are told apart by."""

    name: str = MISSING
    policy: Any = MISSING
    guide: Any = None
    search: Any = None
    value_target: str = "${value.target}"
    foresight: Any = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class BestOf(Method):
    n: int = bounded(16, "a positive number of samples", least=1)


@dataclass
class ScalarGuided(Method):
    beta: float = bounded(1.0, "a finite strength, 0 or more", least=0)
    k: int = bounded(20, "a positive number of candidates", least=1)
    outside: str = bounded("mean", "one of mean, prefix, drop", choices=("mean", "prefix", "drop"))
    force_eos_candidate: bool = False
    compat: str = bounded("", "official, or empty", choices=("", "official"))


@dataclass
class ImplicitGuided(Method):
    weight: float = bounded(1.0, "a finite weight, 0 or more", least=0)


@dataclass
class Chunked(Method):
    """Chunk search: W beams, K successors, compared every L tokens."""

    beams: int = bounded(4, "a positive number of beams", least=1)
    successors: int = bounded(4, "a positive number of successors", least=1)
    chunk: int | None = bounded(5, "a positive number of tokens", least=1)
    length_normalised: bool = False
    compat: str = bounded("", "official, or empty", choices=("", "official"))


@dataclass
class Ivg(Chunked):
    token_by: str = bounded("implicit", "one of implicit, explicit, none", choices=("implicit", "explicit", "none"))
    chunk_by: str = bounded("explicit", "one of implicit, explicit, none", choices=("implicit", "explicit", "none"))
    guides: dict[str, Any] = field(default_factory=dict)
    scorers: dict[str, Any] = field(default_factory=dict)
    tuned: Any = MISSING
    weight: float = bounded(1.0, "a finite weight, 0 or more", least=0)
    beta: float = bounded(1.0, "a finite strength, 0 or more", least=0)
    k: int = bounded(10, "a positive number of candidates", least=1)
    strengths: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    valued: dict[str, Any] = field(default_factory=dict)


@dataclass
class Judge:
    """Who decides which of two responses is better: `scorer`, `beside` another one; `verdicts`: the stage, or null."""

    name: str = MISSING
    order: str = bounded("both", "one of both, seeded, as_is", choices=("both", "seeded", "as_is"))
    canary: int = bounded(20, "a number of prompts, 0 or more", least=0)
    scorer: Any = field(default=None, metadata={"needs": ("verdicts", SECOND_ALONE)})
    beside: Any = field(default_factory=lambda: dict(SEAT))
    verdicts: Any = None


@dataclass
class RewardJudge(Judge):
    tie: float = bounded(0.0, "a difference in reward, 0 or more", least=0)


@dataclass
class ApiJudge(Judge):
    model: str = MISSING
    base_url: str = MISSING
    api_key_env: str | None = None
    mode: str = bounded("text", "one of logprob, structured, text", choices=("logprob", "structured", "text"))
    template: str = "hardened"
    max_tokens: int = bounded(512, "a positive number of tokens", least=1)
    token_limit: str = bounded(
        "max_tokens", "one of max_tokens, max_completion_tokens", choices=("max_tokens", "max_completion_tokens")
    )
    temperature: float | None = bounded(0.0, "a temperature, 0 or more", least=0)
    top_p: float | None = bounded(1.0, "a probability above 0, at most 1", above=0, most=1)
    seed: int | None = None
    top_logprobs: int = bounded(5, "a number of tokens, 2 or more", least=2)
    extra: dict[str, Any] = field(default_factory=dict)
    returned_model: str = ""
    asks: int = bounded(3, "a positive number of times", least=1)
    max_output_chars: int = bounded(40000, "a positive number of characters", least=1)
    max_unreachable: float = bounded(0.02, "a share between 0 and 1", least=0, most=1)
    max_cost: float | None = bounded(None, "an amount of dollars, 0 or more", least=0)
    concurrency: int = bounded(8, "a positive number of requests", least=1)
    rpm: int | None = bounded(None, "a positive number of requests a minute", least=1)
    tpm: int | None = bounded(None, "a positive number of tokens a minute", least=1)
    timeout: float = bounded(120.0, "a positive number of seconds", above=0)
    attempts: int = bounded(8, "a positive number of sendings", least=1)
    batch: bool = False


@dataclass
class Sampling:
    _target_: str = "stages.engine.sampling.Sampling"
    temperature: float = bounded(1.0, "a positive temperature", above=0)
    top_p: float = bounded(1.0, "a probability above 0, at most 1", above=0, most=1)
    top_k: int = bounded(0, "a number of tokens, 0 or more (0: all)", least=0)
    min_p: float = bounded(0.0, "a probability between 0 and 1", least=0, most=1)
    greedy: bool = False
    max_new_tokens: int = bounded(32, "a positive number of tokens", least=1)
    stop: list[str] = field(default_factory=list)


@dataclass
class Rollouts:
    part: str = "train"
    samples: int = bounded(8, "a positive number of samples", least=1)
    seed: int = bounded(0, "a whole number, 0 or more", least=0)


@dataclass
class Trainer:
    """How models are trained: `settings` is what a stage is handed of it, `runtime` where it runs."""

    accelerator: str = MISSING
    devices: int = bounded(1, "a positive number of devices", least=1)
    strategy: str = bounded("auto", "one of auto, ddp", choices=("auto", "ddp"))
    accumulate: int = bounded(1, "a positive number of parts", least=1)
    checkpoint_every: int = bounded(0, "a number of steps, 0 or more (0: none)", least=0)
    resume: bool = True
    precision: str = bounded("32", "one of 32, bf16-mixed", choices=("32", "bf16-mixed"))
    clip: float = bounded(1.0, "a norm, 0 or more (0: any)", least=0)
    schedule: str = bounded("cosine", "one of cosine, linear, constant", choices=("cosine", "linear", "constant"))
    warmup: float = bounded(0.1, "a share between 0 and 1", least=0, most=1)
    max_steps: int = bounded(0, "a number of steps, 0 (by epochs) or more", least=0)
    patience: int = bounded(0, "a number of checks, 0 (off) or more", least=0)
    check_every: int = bounded(50, "a positive number of steps", least=1)
    settings: Any = None
    runtime: Any = None


@dataclass
class Executor:
    kind: str = bounded("local", "one of local, inprocess", choices=("local", "inprocess"))
    cores: int | None = bounded(None, "a positive number of cores", least=1)
    memory: float | None = bounded(None, "a positive number of GiB", above=0)
    retries: int = bounded(1, "a number of attempts, 0 or more", least=0)
    preload: list[str] = field(default_factory=list)


@dataclass
class Tracking:
    mode: str = bounded("none", "one of none, offline, online", choices=("none", "offline", "online"))
    project: str = "tiltlab"
    entity: str | None = None
    finish_seconds: float = bounded(20.0, "a positive number of seconds", above=0)


def register_schemas() -> None:
    """Makes every schema known to Hydra as `schema/<group>/<kind>`, and the resolvers that the YAML files use."""
    register_dtypes()
    store = ConfigStore.instance()
    kinds: dict[str, dict[str, type]] = {
        "task": {"base": Task, "file": FileTask},
        "model": {"base": Model, "local": LocalModel, "hub": HubModel},
        "policy": {"base": Policy, "sft": SftPolicy, "dpo": DpoPolicy, "ppo": PpoPolicy},
        "reward": {"base": Reward},
        "value": {"base": Value},
        "method": {
            "base": Method,
            "best_of": BestOf,
            "scalar_guided": ScalarGuided,
            "implicit": ImplicitGuided,
            "chunked": Chunked,
            "ivg": Ivg,
        },
        "tuned": {"base": Tuned},
        "foresight": {"base": Foresight},
        "judge": {"base": Judge, "reward": RewardJudge, "api": ApiJudge},
        "sampling": {"base": Sampling},
        "rollouts": {"base": Rollouts},
        "trainer": {"base": Trainer},
        "executor": {"base": Executor},
        "tracking": {"base": Tracking},
    }
    for group, schemas in kinds.items():
        for name, node in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=node, provider="tilt")
