"""The processes of a training on several devices (DDP), as Lightning sees them.

Whoever runs the stage starts them: each runs the same stage on its share of every batch, and is told by
`runtime.rank` and `runtime.world` which one of how many it is. Only rank 0 may write or report. Where they meet stands
in the environment (MASTER_ADDR, MASTER_PORT), as torch and Lightning have it.
"""

import os
from typing import Any

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment

from stages.runtime import Runtime


class RankEnvironment(ClusterEnvironment):
    """Tells Lightning what the runtime was told; it starts no process of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.runtime.world

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.runtime.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        """Which of this machine's devices is this process's."""
        return int(os.environ["LOCAL_RANK"]) if self.runtime.world > 1 else 0

    def node_rank(self) -> int:
        return 0


def placed(runtime: Runtime, ddp: type) -> dict[str, Any]:
    """What Lightning's Trainer and Fabric are told of devices and processes; `ddp` is their class of the strategy."""
    kind, _, index = runtime.device.partition(":")
    found = {"accelerator": kind, "plugins": [RankEnvironment(runtime)]}
    if runtime.world == 1:
        return found | {"devices": [int(index)] if index else 1, "strategy": "auto"}
    backend = torch.distributed.get_default_backend_for_device(kind)
    return found | {"devices": runtime.world, "strategy": ddp(process_group_backend=backend)}
