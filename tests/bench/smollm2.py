"""SmolLM2 for the benchmarks: a Hugging Face folder, converted once from its package (conf/model/smollm2.yaml)."""

import os
from pathlib import Path

import yaml

from stages.data.assets import PackageModel

ROOT = Path(__file__).parents[2]


def model_folder() -> Path:
    """Of TILT_BENCH_MODEL where that is set."""
    folder = Path(os.environ.get("TILT_BENCH_MODEL", ROOT / "runs/bench/smollm2"))
    if not (folder / "config.json").is_file():
        load = yaml.safe_load((ROOT / "conf/model/smollm2.yaml").read_text(encoding="utf-8"))["load"]
        folder.mkdir(parents=True, exist_ok=True)
        PackageModel(**{key: value for key, value in load.items() if key not in ("_target_", "resources")}).run(folder)
    return folder
