"""Which schema goes by which name: a YAML file of the group takes it by `defaults: [/schema/<group>/<name>@_here_]`.

A misspelt key, a value of the wrong type or one outside its bounds is then an error of one line. What a key does stands
beside it in the YAML files, with its default value.
"""

from hydra.core.config_store import ConfigStore

from conf.dtypes import register_dtypes
from conf.schemas.judge import ApiJudge, Judge, RewardJudge
from conf.schemas.methods import BestOf, Chunked, CompatibleGuided, ImplicitGuided, Ivg, Method, ScalarGuided
from conf.schemas.models import HubModel, LocalModel, Model, Reward, Rollouts, Sampling
from conf.schemas.policies import BestRolloutsTuned, DpoPolicy, Policy, PpoPolicy, SftPolicy, Tuned
from conf.schemas.running import Executor, Tracking
from conf.schemas.task import FileTask, Task
from conf.schemas.training import Foresight, Trainer, Value

SCHEMAS: dict[str, dict[str, type]] = {
    "task": {"base": Task, "file": FileTask},
    "model": {"base": Model, "local": LocalModel, "hub": HubModel},
    "policy": {"base": Policy, "sft": SftPolicy, "dpo": DpoPolicy, "ppo": PpoPolicy},
    "reward": {"base": Reward},
    "value": {"base": Value},
    "method": {
        "base": Method,
        "best_of": BestOf,
        "scalar_guided": ScalarGuided,
        "compatible_guided": CompatibleGuided,
        "implicit": ImplicitGuided,
        "chunked": Chunked,
        "ivg": Ivg,
    },
    "tuned": {"base": Tuned, "best_rollouts": BestRolloutsTuned},
    "foresight": {"base": Foresight},
    "judge": {"base": Judge, "reward": RewardJudge, "api": ApiJudge},
    "sampling": {"base": Sampling},
    "rollouts": {"base": Rollouts},
    "trainer": {"base": Trainer},
    "executor": {"base": Executor},
    "tracking": {"base": Tracking},
}
"""By group, then by name."""


def register_schemas() -> None:
    """Makes every schema known to Hydra as `schema/<group>/<name>`, and the resolvers that the YAML files use."""
    register_dtypes()
    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, node in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=node, provider="tilt")
