"""`hydra/sweeper=blocks`: a sweep is a list of blocks, each a product of choices; the sweep is their union.

    tilt run -m sweep=demo                      the blocks of sweeps/demo.yaml
    tilt run -m sweep=demo method.beta=3        3 takes the place of the strengths that the file gives to method.beta
    tilt run -m method=vas method.beta=1,2,4    without a file: one block, Hydra's usual product

A file (`sweeps/<name>.yaml`, or any path that ends in `.yaml`) holds `blocks:`, a list of mappings from override to a
value or a list of values. Command-line overrides replace a key in the blocks that have it and are added to all blocks
where none has it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_plugins.tilt.launcher import GraphLauncher
from pipeline.config import nearest
from pipeline.errors import UsageError

SWEEPS = "sweeps"


@dataclass
class BlockSweeperConf:
    _target_: str = "hydra_plugins.tilt.sweeper.BlockSweeper"


def register_sweeper() -> None:
    """Makes `hydra/sweeper=blocks` known to Hydra."""
    ConfigStore.instance().store(group="hydra/sweeper", name="blocks", node=BlockSweeperConf, provider="tilt")


class BlockSweeper(Sweeper):
    """Expands the command line and the sweep file into points and launches them in one batch."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.batches = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Raises UsageError for a sweep file that is missing or is not a list of blocks."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        choices: dict[str, list[str]] = {}
        for override in parser.parse_overrides(arguments):
            key = override.get_key_element()
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise UsageError(f"{key}: only discrete choices can be swept here (a,b,c or range(…))")
                choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
                if not choices[key]:
                    raise UsageError(f"{key}: there is nothing to choose from in {override.input_line}")
            else:
                choices[key] = [override.input_line or f"{key}={override.get_value_element_as_str()}"]
        name = choices.get("sweep", ["sweep="])[0].partition("=")[2]
        blocks = read_blocks(name) if name not in ("", "null") else [{}]
        returns = self.batches.launch([list(point) for point in expand(blocks, choices)], initial_job_idx=0)
        if not isinstance(self.batches, GraphLauncher):  # which has told of failures itself
            for one in returns:
                _ = one.return_value  # raises where the job failed
        return [returns]


def read_blocks(name: str) -> list[dict[str, list[str]]]:
    """The blocks of a sweep file: {override key: [`key=value`, …]} each. Raises UsageError for anything else."""
    own = files(SWEEPS)
    path = Path(name) if name.endswith(".yaml") else Path(str(own.joinpath(f"{name}.yaml")))
    if not path.is_file():
        known = sorted(p.name.removesuffix(".yaml") for p in own.iterdir() if p.name.endswith(".yaml"))
        raise UsageError(f"sweep: there is no '{name}'{nearest(name, known)} (available: {', '.join(known)})")
    loaded = OmegaConf.load(path)
    if not isinstance(loaded, DictConfig) or not isinstance(blocks := loaded.get("blocks"), ListConfig) or not blocks:
        raise UsageError(f"sweep: {path} has no list of `blocks`")
    plain: list[Any] = OmegaConf.to_container(blocks)  # type: ignore[assignment]
    return [_block(block, f"sweep: {path}: blocks[{number}]") for number, block in enumerate(plain)]


def _block(block: Any, place: str) -> dict[str, list[str]]:
    if not isinstance(block, dict):
        raise UsageError(f"{place}: {_spelt(block)} is not a mapping from override to value or list of values")
    if empty := [key for key, value in block.items() if value == []]:
        raise UsageError(f"{place}: {empty[0]} has no value to choose from")
    return {
        key: [f"{key}={_spelt(v)}" for v in (value if isinstance(value, list) else [value])]
        for key, value in block.items()
    }


def _spelt(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def expand(blocks: Sequence[dict[str, list[str]]], choices: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    """The points of all blocks: of each block the product of its values. The command line's choices replace the block's
    own. Equal points appear once."""
    in_blocks = {key for block in blocks for key in block}
    seen: set[tuple[str, ...]] = set()
    for block in blocks:
        own = {key: choices.get(key, values) for key, values in block.items()}
        rest = {key: values for key, values in choices.items() if key not in in_blocks}
        for point in itertools.product(*own.values(), *rest.values()):
            if point not in seen:
                seen.add(point)
                yield point
