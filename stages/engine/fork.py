"""Where a trunk tuned in its upper layers leaves the policy's: the layers below the fork then run once for both.

A value trained with `lora_rank` and `top_layers` (`stages/learn/values/train.py`) has such a trunk. The fork is
found in the weights themselves, whoever made them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from stages.engine.loaded import LoadedLM
from stages.engine.sections import Branch, Sections, Tap

NO_MATTER = ("_name_or_path", "transformers_version", "dtype", "use_cache")
"""What two configurations of one architecture may differ in."""
TRIAL = 5
"""Tokens of the trial forward."""


def branch_of(policy: LoadedLM, other: LoadedLM, field: str) -> Branch | None:
    """The layers of `other` from the first that differs from the policy's (all the same: from the end).

    None where nothing can be shared: other weights below or beside the layers, another architecture, device, type of
    numbers or way to encode prompts, quantised weights. Of `other` only layers that differ are kept.
    """
    if not (_alike(policy, other) and _encode_alike(policy, other)):
        return None
    mine, theirs = policy.sections.layers, other.sections.layers
    differing = [i for i in range(policy.layers) if not _equal(mine[i].state_dict(), theirs[i].state_dict())]
    first = min(differing, default=policy.layers)
    if first == 0 or not _same_beside(policy, other):
        return None
    replaced = {index: theirs[index] for index in differing}
    branch = Branch(first, Sections(policy.trunk, policy.layers, field, replaced))
    branch.sections.wrapped = policy.sections.wrapped
    return branch if _agrees(policy, other, branch) else None


def tap_of(branch: Branch, layer: int) -> int | Tap:
    """State `layer` of a branch: at the fork and below it is the policy's own."""
    return layer if layer <= branch.first else Tap(branch, layer)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _alike(policy: LoadedLM, other: LoadedLM) -> bool:
    models = (policy.model, other.model)
    if any(getattr(model, "is_quantized", False) for model in models) or type(models[0]) is not type(models[1]):
        return False
    configs = [{k: v for k, v in model.config.to_dict().items() if k not in NO_MATTER} for model in models]
    return configs[0] == configs[1] and policy.dtype == other.dtype and policy.device == other.device


def _encode_alike(policy: LoadedLM, other: LoadedLM) -> bool:
    """The policy's tokens of a prompt are those that the other would read."""
    mine, theirs = policy.tokenizer, other.tokenizer
    text = "A prompt,\nread by both."
    return (
        mine.get_vocab() == theirs.get_vocab()
        and getattr(mine, "chat_template", None) == getattr(theirs, "chat_template", None)
        and mine(text)["input_ids"] == theirs(text)["input_ids"]
    )


def _same_beside(policy: LoadedLM, other: LoadedLM) -> bool:
    """Embeddings, final norm: everything but the layers."""
    path = policy.sections.path + "."
    a, b = ({k: v for k, v in one.trunk.state_dict().items() if not k.startswith(path)} for one in (policy, other))
    return _equal(a, b)


def _agrees(policy: LoadedLM, other: LoadedLM, branch: Branch) -> bool:
    """Whether a trial forward gives the states that the other model gives as a whole."""
    prompt = [[policy.eos, *range(TRIAL - 1)]]
    layers = range(branch.first, policy.layers + 1)
    with torch.inference_mode():
        ours = policy.prefill(prompt, [tap_of(branch, layer) for layer in layers])[1].states
        theirs = other.prefill(prompt, list(layers))[1].states
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in zip(ours, theirs, strict=True))
