"""What a model must be able to do before it decodes: tried once, when it is loaded."""

import torch

from stages.engine.head import require_known_head
from stages.engine.loaded import LoadedLM
from stages.errors import BadInput

SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}
TRIAL = 6
"""Candidates that step side by side when a model is loaded: the last one's slot is five beyond its position."""
TOLERANCES = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Relative difference of states that rounding may make in the trial; positions by slot make it a tenth and more."""
QUANTISED_TOLERANCE = 0.1
"""Eight bits round by what shares the batch."""


def require_known_architecture(lm: LoadedLM) -> None:
    """Raises BadInput, under the model's own key, for an architecture that has no ordinary attention cache, that counts
    positions by the cache's slots, or whose logits are not its head applied to the final hidden states."""
    field = lm.field
    kinds = set(getattr(lm.config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if kinds:
        raise BadInput(field, f"its layers of type {min(kinds)!r} keep no plain key/value cache; use another model")
    if "local" in (getattr(lm.config, "attention_layers", None) or ()):  # GPT-Neo
        raise BadInput(field, "its local attention counts a window by slots of the cache; use another model")
    require_known_head(lm.model, field)
    try:
        error = _trial(lm)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:
        why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadInput(
            field, f"this architecture does not step over a cache with padding ({why}); use another model"
        ) from problem
    quantised = getattr(lm.config, "quantization_config", None) is not None
    allowed = QUANTISED_TOLERANCE if quantised else TOLERANCES.get(lm.dtype, QUANTISED_TOLERANCE)
    if not error <= allowed:
        raise BadInput(
            field,
            f"this architecture does not take positions as they are given (states of candidates beside each other "
            f"are {error:.0%} off), perhaps ALiBi; use another model",
        )


@torch.inference_mode()
def _trial(lm: LoadedLM) -> float:
    """How far states of candidates side by side behind left-padded prompts are from those of plain forwards,
    relative, the mean over a prompt's candidates; 0 where plain forwards are not finite (decoding names that).

    A mean, since a single state of a mixture of experts may change much by rounding.
    """
    *ids, one, other = [lm.vocabulary * eighth // 8 for eighth in range(1, 6)]
    prompts, candidates = [ids[:1], ids[1:]], [one, other] * (TRIAL // 2)
    longest = len(prompts[1])
    plain = [[*prompt, token, *ids][: longest + 1] for prompt in prompts for token in (one, other)]
    states = lm.trunk(input_ids=torch.tensor(plain, device=lm.device), use_cache=False).last_hidden_state
    ends = torch.tensor([len(prompt) for prompt in prompts], device=lm.device).repeat_interleave(2)
    expected = states[torch.arange(len(plain), device=lm.device), ends].float()  # (2·2, D)
    if not expected.isfinite().all():
        return 0.0
    expected = expected.view(2, 2, -1).repeat(1, TRIAL // 2, 1)  # (R, F, D)
    taps = (lm.layers,)  # through the sections, as values are read
    prefilled, _ = lm.prefill(prompts, taps)
    cache = lm.cache(len(prompts), longest + TRIAL, taps)
    cache.settle(longest)
    cache.enter(prefilled, range(len(prompts)))
    found = lm.step(torch.tensor([candidates] * len(prompts), device=lm.device), cache, taps).last.float()
    sizes = expected.norm(dim=2).clamp(min=1e-6)
    return float(((found - expected).norm(dim=2) / sizes).mean(dim=1).amax())
