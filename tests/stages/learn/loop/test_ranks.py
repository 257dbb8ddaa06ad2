"""What Lightning is told of devices and processes, and what a training says where their numbers differ."""

from pathlib import Path

import pytest
from pytorch_lightning.strategies import DDPStrategy

from stages.errors import BadInput
from stages.learn.loop.ranks import RankEnvironment, placed
from stages.learn.loop.trainer import Trainer, TrainingRuntime, machines_of
from stages.learn.policies.sft import FineTune
from stages.runtime import Runtime


def test_lightning_learns_who_it_is_from_the_runtime_and_where_to_meet_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
):
    told = {"MASTER_ADDR": "node7", "MASTER_PORT": "4321", "LOCAL_RANK": "1", "RANK": "9", "WORLD_SIZE": "9"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    environment = RankEnvironment(Runtime(rank=3, world=4))
    assert (environment.global_rank(), environment.world_size()) == (3, 4)
    assert (environment.local_rank(), environment.main_address, environment.main_port) == (1, "node7", 4321)
    assert environment.creates_processes_externally  # Lightning starts none
    environment.set_global_rank(0)
    environment.set_world_size(1)
    assert (environment.global_rank(), environment.world_size()) == (3, 4)


@pytest.mark.parametrize(("device", "devices"), [("cpu", 1), ("cuda:2", [2])])
def test_one_process_trains_on_its_device_whatever_stands_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, device: str, devices: object
):
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = placed(Runtime(device=device), DDPStrategy)
    assert (found["accelerator"], found["devices"], found["strategy"]) == (device.partition(":")[0], devices, "auto")
    assert found["plugins"][0].local_rank() == 0


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_several_processes_train_together_by_the_devices_own_backend(device: str, backend: str):
    found = placed(Runtime(device=device, rank=1, world=2), DDPStrategy)
    assert (found["accelerator"], found["devices"]) == (device, 2)
    assert isinstance(found["strategy"], DDPStrategy)
    assert found["strategy"].process_group_backend == backend


@pytest.mark.parametrize(
    ("runtime", "wanted", "there"),
    [
        (TrainingRuntime(devices=2), 2, 1),  # run by hand
        (TrainingRuntime(devices=1, world=2), 1, 2),  # resources.processes says more than trainer.devices
        (Runtime(world=2), 1, 2),
    ],
)
def test_another_number_of_processes_than_of_devices_is_one_line(runtime: Runtime, wanted: int, there: int):
    with pytest.raises(BadInput) as refused:
        machines_of(runtime, Trainer())
    assert refused.value.field == "runtime.devices"
    assert refused.value.problem == (
        f"{wanted} needs as many processes, and this stage runs in {there}; `tilt run` starts as many as the stage's "
        "resources.processes says, which has to be the same"
    )


def test_a_stage_refuses_before_it_reads_anything(tmp_path: Path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(BadInput, match=r"^runtime\.devices: 2 needs as many processes"):
        FineTune(model=nowhere, prompts=nowhere, runtime=TrainingRuntime(devices=2)).run(tmp_path)
