"""Which type of numbers a model computes in where nobody says: bfloat16 where the machine is fast in it.

A processor without AVX-512 takes about 60 times as long for a matrix product in bfloat16 as in float32: on it the
default comparison would take a day. The type enters every key, as it changes the last digits of what is drawn; so a
store that several machines share wants one value: `model.dtype=float32`.
"""

from pathlib import Path

from omegaconf import OmegaConf

CPUINFO = Path("/proc/cpuinfo")
FAST = ({"avx512bw", "avx512vl", "avx512dq"}, {"bf16"})
"""Features of a processor, as Linux names them, with which torch multiplies bfloat16 at full speed: x86's, Arm's."""


def multiplies_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are fast there. Of a processor that does not say (not Linux): no."""
    if not device.startswith("cpu"):
        return True
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    named = [line.partition(":")[2].split() for line in lines if line.split(":")[0].strip() in ("flags", "Features")]
    return bool(named) and any(features <= set(named[0]) for features in FAST)


def register_dtypes() -> None:
    """Adds `${fast_dtype:DEVICE}`, `bfloat16` or `float32`, and `${fast_precision:DEVICE}`, `bf16-mixed` or `32`."""
    OmegaConf.register_new_resolver(
        "fast_dtype", lambda device: "bfloat16" if multiplies_bfloat16(device) else "float32", replace=True
    )
    OmegaConf.register_new_resolver(
        "fast_precision", lambda device: "bf16-mixed" if multiplies_bfloat16(device) else "32", replace=True
    )
