"""On the demo's language model: the summed exact KL agrees with the Monte-Carlo log-ratio within its error."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module

from stages.data.assets import PackageModel
from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.learn.values.scalar_head import ValueHead, fingerprint

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> LoadedLM:
    folder = tmp_path_factory.mktemp("smollm2")
    from conf.schemas.register import register_schemas

    register_schemas()
    with initialize_config_module(config_module="conf", version_base="1.3"):
        load: dict[str, Any] = dict(compose("config", ["hydra/launcher=basic", "hydra/sweeper=basic"]).model.load)
    PackageModel(**{key: value for key, value in load.items() if key not in ("_target_", "resources")}).run(folder)
    return CausalLM(folder).load("cpu")


def test_exact_kl_agrees_with_the_log_ratio(demo: LoadedLM, tmp_path: Path) -> None:
    head = ValueHead(size=576, rewards=("proxy",), layer=20, trunk=fingerprint(demo.folder))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head.last.weight.copy_(torch.randn(head.last.weight.shape, generator=generator) * 0.02)
    head.save(tmp_path)
    sampling = Sampling(temperature=0.9, top_p=0.9, max_new_tokens=8)
    lanes = Lanes(demo)
    terms = ScalarValue(tmp_path, beta=2.0, k=10).open(lanes, sampling)
    ids = list(demo.tokenizer("Movie review: The story of")["input_ids"])
    rows = Engine(lanes, Draw(sampling, 0, 64), terms).run([("a", ids)], 128)
    kl = np.array([row.kl for row in rows])
    ratio = np.array([row.logprob - row.base_logprob for row in rows])
    assert kl.mean() > 0.1
    assert abs((kl - ratio).mean()) < 4 * (kl - ratio).std() / math.sqrt(len(kl))
    assert kl.std() < ratio.std()
