"""The type of numbers follows from what the machine multiplies fast."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf import dtypes
from conf.dtypes import multiplies_bfloat16, register_dtypes


@pytest.mark.parametrize(
    ("told", "fast"),
    [
        ("flags\t\t: fpu sse2 avx2 fma avx512bw avx512dq avx512vl\nflags\t\t: fpu\n", True),
        ("flags\t\t: fpu sse2 avx avx2 fma\n", False),
        ("flags\t\t: avx512f avx512bw\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name\t: flags bf16\n", False),
        ("", False),
    ],
    ids=["AVX-512", "AVX2", "an early AVX-512", "Arm with bf16", "Arm", "a name", "nothing"],
)
def test_a_processor_says_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(dtypes, "CPUINFO", tmp_path / "cpuinfo")
    assert multiplies_bfloat16("cpu") == fast
    register_dtypes()
    chosen = OmegaConf.create({"device": "cpu", "d": "${fast_dtype:${device}}", "p": "${fast_precision:${device}}"})
    assert (chosen.d, chosen.p) == (("bfloat16", "bf16-mixed") if fast else ("float32", "32"))


def test_a_machine_that_says_nothing_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "CPUINFO", tmp_path / "nowhere")
    assert not multiplies_bfloat16("cpu")
    assert multiplies_bfloat16("cuda:1")
