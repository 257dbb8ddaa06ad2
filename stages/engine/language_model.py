"""Loading a causal language model and its tokenizer from a folder.

Used by every stage that runs a model; nothing here names a device or a dtype of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def require_model_folder(folder: Path, field: str) -> None:
    """Raises BadInput where `folder` is no complete Hugging Face model folder: config, safetensors, tokenizer."""
    if not folder.is_dir():
        raise BadInput(field, f"{folder} is not a folder")
    if not (folder / "config.json").is_file():
        raise BadInput(field, f"{folder} has no config.json; give a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        raise BadInput(field, f"{folder} has no *.safetensors weights; save the model with save_pretrained first")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise BadInput(field, f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}); save one beside the model")


def load_tokenizer(folder: Path, field: str = "model") -> "PreTrainedTokenizerBase":
    """The folder's tokenizer. Raises BadInput where it has no EOS token; pads with EOS where it has no pad token."""
    from transformers import AutoTokenizer

    require_model_folder(folder, field)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise BadInput(field, f"the tokenizer in {folder} names no eos_token; responses could never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, *, dtype: str, device: str, field: str = "model") -> "PreTrainedModel":
    """The folder's causal LM in evaluation mode, without gradients.

    `dtype` is torch's name for it (`float32`, `bfloat16`). Raises BadInput where the folder is not complete, or the
    device cannot be used.
    """
    import torch
    from transformers import AutoModelForCausalLM

    require_model_folder(folder, field)
    require_float64(device)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device).eval().requires_grad_(False)  # type: ignore[no-any-return]


def require_float64(device: str) -> None:
    """Raises BadInput for a device that is not there, or that has no float64 (Apple's): probabilities and KL are summed
    in it where the model is."""
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, RuntimeError, AssertionError) as error:
        problem = str(error).strip().splitlines()[0].split(". ")[0]
        raise BadInput(
            "runtime.device", f"{device!r} has no float64, which decoding needs ({problem}); choose another device"
        ) from error
