"""A causal language model as it is configured: which folder, and how it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.engine.language_model import load_model, load_tokenizer, require_model_folder
from stages.engine.loaded import LoadedLM
from stages.engine.trial import require_known_architecture
from stages.errors import BadInput

DTYPES = ("float32", "bfloat16", "float16")
QUANTISATIONS = ("8bit", "4bit")


@dataclass
class CausalLM:
    """A Hugging Face folder with a causal language model (base, fine-tuned or merged).

    Each has its own type, device and quantisation: `tilt run method=eft +method.guide.tuned.quantisation=4bit`.
    """

    folder: Path
    dtype: str = "float32"
    """torch's name for the weights' type: `float32`, `bfloat16`, `float16`."""
    device: str | None = None
    """Where this model lives; null: where the stage runs."""
    quantisation: str | None = None
    """`8bit` or `4bit` through bitsandbytes; null: none."""

    def load(self, device: str, field: str = "policy") -> LoadedLM:
        """Loads model and tokenizer. Raises BadInput for an unknown dtype or quantisation, an incomplete folder, or an
        architecture whose logits are not its head applied to the final hidden state, that has no ordinary attention
        cache, or that counts positions by the cache's slots."""
        if self.dtype not in DTYPES:
            raise BadInput(f"{field}.dtype", f"{self.dtype!r} is not one of {', '.join(DTYPES)}")
        folder = Path(self.folder)
        tokenizer = load_tokenizer(folder, f"{field}.folder")
        where = self.device or device
        if self.quantisation is None:
            model = load_model(folder, dtype=self.dtype, device=where, field=f"{field}.folder")
        else:
            model = self._quantised(folder, where, field)
        lm = LoadedLM(folder, model, tokenizer, f"{field}.folder")
        require_known_architecture(lm)
        return lm

    def _quantised(self, folder: Path, device: str, field: str) -> Any:
        if self.quantisation not in QUANTISATIONS:
            raise BadInput(f"{field}.quantisation", f"{self.quantisation!r} is not one of {', '.join(QUANTISATIONS)}")
        try:
            import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
        except ImportError as error:
            raise BadInput(
                f"{field}.quantisation", "needs the package bitsandbytes, which is not installed; set it to null"
            ) from error
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        require_model_folder(folder, f"{field}.folder")
        dtype, eight = getattr(torch, self.dtype), self.quantisation == "8bit"
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                quantization_config=BitsAndBytesConfig(
                    load_in_8bit=eight, load_in_4bit=not eight, bnb_4bit_compute_dtype=dtype
                ),
                device_map={"": device},
                local_files_only=True,
            )
        except ImportError as error:  # too old, or built for other devices
            problem = str(error).strip().splitlines()[0]
            raise BadInput(f"{field}.quantisation", f"bitsandbytes cannot be used: {problem}") from error
        return model.eval().requires_grad_(False)
