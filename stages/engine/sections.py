"""A transformer's layers run in sections, by its own forward: what lies below and above a section is passed over.

Families prepare masks, positions and rotary embeddings for each layer in their own ways. So a section is not a loop of
ours over layers: it is the model itself with a `Slot` in every layer's place, and a slot outside the section hands on
what it is given. Layers are numbered as Hugging Face numbers hidden states: state n is what layer n reads, the last
one has gone through the final norm.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from stages.errors import BadInput


class Slot(nn.Module):
    """Stands in a layer's place."""

    def __init__(self, layer: nn.Module, index: int, sections: "Sections") -> None:
        super().__init__()
        self.layer, self.index, self.sections = layer, index, sections

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models ask a layer for its kind of attention
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """States (R, F, D) before the layer → after it."""
        run = self.sections
        if run.given is not None and self.index == run.first:
            hidden = run.given
        if self.index in run.states:
            run.states[self.index] = hidden
        if run.first <= self.index < run.end:
            out = self.layer(hidden, *args, **kwargs)
            run.wrapped = isinstance(out, tuple)
            return out
        return (hidden,) if run.wrapped else hidden


class Sections:
    """A trunk of n layers, of which any section can be run alone. The trunk itself stays as it is."""

    def __init__(self, trunk: Any, count: int, field: str, replaced: Mapping[int, nn.Module] | None = None) -> None:
        """`replaced`: layers of another trunk to run in the place of its own. Raises BadInput where no list holds the
        `count` layers."""
        self.count = count
        self.first, self.end = 0, count
        self.given: Tensor | None = None
        self.states: dict[int, Tensor | None] = {}
        self.wrapped = False
        self.path = layers_path(trunk, count, field)
        own: Any = trunk.get_submodule(self.path)
        replaced = replaced or {}
        self.layers: list[nn.Module] = [replaced.get(index) or layer for index, layer in enumerate(own)]
        slots = nn.ModuleList(Slot(layer, index, self) for index, layer in enumerate(self.layers))
        self.model = _with(trunk, self.path.split("."), slots)

    def run(
        self, first: int, end: int, wanted: Collection[int] = (), given: Tensor | None = None, **call: Any
    ) -> dict[int, Tensor]:
        """Layers first … end − 1 on states `given` (R, F, D), from the embeddings where there are none; `call` is the
        model's own. Returns hidden states (R, F, D): those `wanted`, and that of `end`."""
        self.first, self.end, self.given = first, end, given
        self.states = dict.fromkeys([*wanted, end])
        try:
            out = self.model(**call, **({} if given is None else {"inputs_embeds": given}))
            found = self.states
        finally:
            self.given, self.states = None, {}
        if self.count in found:
            found[self.count] = out.last_hidden_state
        return {index: state for index, state in found.items() if state is not None}


def layers_path(trunk: Any, count: int, field: str) -> str:
    """The name of the list that holds the trunk's layers."""
    names = [
        name for name, module in trunk.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not names:
        raise BadInput(field, f"this architecture keeps its {count} layers in no list; use one that does")
    return min(names, key=lambda name: name.count("."))


def _with(module: Any, path: list[str], part: nn.Module) -> Any:
    """A module that shares everything with `module` but the part at `path`."""
    shared = copy.copy(module)
    inner = part if len(path) == 1 else _with(getattr(module, path[0]), path[1:], part)
    shared._modules = {**module._modules, path[0]: inner}
    return shared


class Branch(NamedTuple):
    """Layers of another trunk that read the policy's state `first`: all below are the policy's own."""

    first: int
    sections: Sections


class Tap(NamedTuple):
    """hidden_states[layer] of a branch."""

    branch: Branch
    layer: int


Taps = Collection[int | Tap]
"""Hidden states to read: the trunk's own by number, or a branch's."""


def branch_ends(taps: Taps) -> dict[Branch, int]:
    """How far each branch has to run."""
    ends: dict[Branch, int] = {}
    for tap in taps:
        if isinstance(tap, Tap):
            ends[tap.branch] = max(tap.layer, ends.get(tap.branch, 0))
    return ends


def forks(taps: Taps) -> list[int]:
    """The trunk's own states that are needed, read or handed to a branch."""
    return [tap.branch.first if isinstance(tap, Tap) else tap for tap in taps]
