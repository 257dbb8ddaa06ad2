"""The models that decode together, each in its lane, all with the same rows.

Lane 0 is the policy. A guide or a scorer asks `Lanes.join` for its model; the same folder asked for twice is one lane,
and has to be asked for in the same way.
Lanes have prompts of their own (each model's chat template) but share the response's tokens, hence the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch

from stages.engine.causal_lm import QUANTISATIONS, CausalLM
from stages.engine.fork import branch_of, tap_of
from stages.engine.lane import Lane
from stages.engine.loaded import LoadedLM
from stages.engine.prompts import encode_prompt, require_room
from stages.engine.sections import Branch
from stages.errors import BadInput
from stages.records import Prompt

Key = tuple[Path, str | None]


def _key(model: CausalLM) -> Key:
    return Path(model.folder).resolve(), model.quantisation


def _require(model: CausalLM, field: str, dtype: torch.dtype, device: torch.device) -> None:
    """Raises BadInput where a loaded model is asked for in another dtype, or on another device (null: any)."""
    if model.dtype != str(dtype).removeprefix("torch."):
        _refuse(f"{field}.dtype", model.folder, str(dtype).removeprefix("torch."), model.dtype)
    kind, _, index = (model.device or str(device)).partition(":")
    if (kind, index or "0") != (device.type, str(device.index or 0)):
        _refuse(f"{field}.device", model.folder, str(device), model.device)


def _refuse(field: str, folder: Path, loaded: str, asked: str | None) -> NoReturn:
    raise BadInput(
        field, f"{asked} was asked for, but {folder} is loaded already with {loaded}, for all that read it; use that"
    )


class Lanes:
    """The policy and the models that step beside it."""

    def __init__(self, policy: LoadedLM) -> None:
        self.policy = Lane(policy)
        self.policy.wants_logits = self.policy.eager = True
        self.all = [self.policy]
        self.ids: list[str] = []
        """Of the prompts that the lanes hold, by index."""
        self._known: dict[Key, Lane] = {}
        self._branches: dict[Key, Branch] = {}
        self._loaded: dict[Key, tuple[torch.dtype, torch.device]] = {}
        """Of both."""

    def join(self, model: CausalLM | None, field: str, *, eager: bool) -> Lane:
        """The lane of a model; the policy's own for null and for the policy's folder. `field` is the model's key.

        Where every token is forwarded as it is drawn (`eager`) the vocabulary must be the policy's; what only scores
        chunks reads text where it is not. Raises BadInput where the model cannot be loaded, is loaded already with
        another dtype or device, or has another vocabulary: both are named.
        """
        if model is None or self._is_base(model, field):
            return self.policy
        self._require_same(model, field)
        if _key(model) not in self._known:
            self._add(model, model.load(str(self.policy.device), field))
        return self._ready(model, field, eager)

    def tap(self, model: CausalLM | None, layer: int, field: str, *, eager: bool) -> tuple[Lane, int]:
        """As `join`, for a hidden state alone: its lane and its place among that lane's states.

        A model that differs from the policy above some layer only is no lane: it branches off the policy's.
        """
        if model is None or self._is_base(model, field):
            return self.policy, self.policy.tap(layer)
        self._require_same(model, field)
        key = _key(model)
        if key not in self._known and key not in self._branches:
            loaded = model.load(str(self.policy.device), field)
            branch = branch_of(self.policy.lm, loaded, field)
            if branch is None:
                self._add(model, loaded)
            else:
                self._branches[key] = branch
                self._loaded[key] = loaded.dtype, loaded.device
        if key in self._branches:
            return self.policy, self.policy.tap(tap_of(self._branches[key], layer))
        lane = self._ready(model, field, eager)
        return lane, lane.tap(layer)

    def _is_base(self, model: CausalLM, field: str) -> bool:
        """Whether it is the policy, whose device and quantisation null then means. Raises BadInput for others."""
        policy = self.policy.lm
        if Path(model.folder).resolve() != Path(policy.folder).resolve():
            return False
        own = next((q for q in QUANTISATIONS if getattr(policy.model, f"is_loaded_in_{q}", False)), None)
        if model.quantisation not in (None, own):
            _refuse(f"{field}.quantisation", policy.folder, str(own), model.quantisation)
        _require(model, field, policy.dtype, policy.device)
        return True

    def _require_same(self, model: CausalLM, field: str) -> None:
        """Raises BadInput where the model is loaded already in another way: what is asked for would be ignored."""
        if loaded := self._loaded.get(_key(model)):
            _require(replace(model, device=model.device or str(self.policy.device)), field, *loaded)

    def _add(self, model: CausalLM, loaded: LoadedLM) -> None:
        lane = self._known[_key(model)] = Lane(loaded)
        self._loaded[_key(model)] = loaded.dtype, loaded.device
        lane.own_tokens = self.policy.lm.tokenizer.get_vocab() != loaded.tokenizer.get_vocab()
        self.all.append(lane)

    def _ready(self, model: CausalLM, field: str, eager: bool) -> Lane:
        lane = self._known[_key(model)]
        if eager and lane.own_tokens:
            self._refuse_vocabulary(lane.lm, f"{field}.folder")
        lane.eager = lane.eager or eager
        return lane

    def _refuse_vocabulary(self, other: LoadedLM, field: str) -> None:
        mine, theirs = len(self.policy.lm.tokenizer.get_vocab()), len(other.tokenizer.get_vocab())
        raise BadInput(
            field,
            f"the vocabulary of {other.folder} ({theirs} tokens) is not that of the policy {self.policy.lm.folder} "
            f"({mine} tokens); token by token they cannot be combined",
        )

    @property
    def eager(self) -> list[Lane]:
        return [lane for lane in self.all if lane.eager]

    def encode(self, prompts: Sequence[tuple[str, Sequence[int]]], asked: Sequence[Prompt] | None, limit: int) -> None:
        """Gives every lane these prompts and no others; as `add`."""
        self.ids = []
        for lane in self.all:
            lane.prompts = []
        self.add(prompts, asked, limit)

    def add(self, prompts: Sequence[tuple[str, Sequence[int]]], asked: Sequence[Prompt] | None, limit: int) -> range:
        """Gives every lane further prompts, and returns their indices. `prompts` are (id, token ids of the policy),
        `asked` what other models encode on their own (None: the policy's tokens).

        Raises BadInput where one leaves no room for `limit` tokens.
        """
        first = len(self.ids)
        self.ids += [name for name, _ in prompts]
        for lane in self.all:
            encoded = [list(ids) for _, ids in prompts]
            if lane.own_tokens and asked is None:
                raise ValueError("a model with another vocabulary needs the prompts' text")
            if lane is not self.policy and asked is not None:
                encoded = [encode_prompt(lane.lm.tokenizer, prompt) for prompt in asked]
                lengths = {prompt.id: len(ids) for prompt, ids in zip(asked, encoded, strict=True)}
                require_room(lengths, lane.lm.model, limit, "prompts")
            lane.prompts += encoded
        return range(first, len(self.ids))
