"""From a language model's final hidden states to its next-token logits: the one rule for decoding and for training.

Both apply the head to the states that they need and to no others, which is more than the output embedding alone: some
families cap its logits. What the rule does not know is refused (`require_known_head`), before anything is computed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Head:
    """A model's output embedding and what follows it; the trunk is not kept alive by it."""

    embedding: Any
    """(…, D) → (…, V)."""
    cap: float | None = None
    """c of c·tanh(logits / c), Gemma 2 (arXiv 2408.00118); None: no cap."""

    @classmethod
    def of(cls, model: Any) -> "Head":
        return cls(model.get_output_embeddings(), getattr(model.config, "final_logit_softcapping", None))

    def __call__(self, states: "Tensor") -> "Tensor":
        """(…, V) next-token logits of final hidden states (…, D)."""
        logits = self.embedding(states)
        return logits if self.cap is None else (logits / self.cap).tanh() * self.cap


def require_known_head(model: Any, field: str) -> None:
    """Raises BadInput where the model's logits are not `Head` of its trunk's final hidden states: one forward, of one
    token from the midst of the vocabulary (the first ones may be padding, whose embedding is zero)."""
    import torch

    trunk: list[Any] = []
    watching = model.base_model.register_forward_hook(lambda module, given, out: trunk.append(out))
    try:
        with torch.inference_mode():
            ids = torch.tensor([[model.config.vocab_size // 2]], device=model.device)
            whole = model(input_ids=ids, use_cache=False).logits  # (1, 1, V)
            parts = Head.of(model)(trunk[0].last_hidden_state) if trunk else torch.full_like(whole, torch.inf)
    finally:
        watching.remove()
    if not torch.equal(whole.isnan(), parts.isnan()) or not torch.allclose(whole, parts, rtol=1e-2, equal_nan=True):
        raise BadInput(field, "this architecture scales or caps its logits after the head; use one that does not")
