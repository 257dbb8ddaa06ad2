"""The Lightning trainer that every training stage shares: settings, portions, checkpoints, early stopping."""

import math
import warnings
from pathlib import Path

import pytest
import torch

from stages.errors import BadInput
from stages.learn.loop.batches import length_batches
from stages.learn.loop.trainer import Module, Trainer, TrainingRuntime, fit, seeded
from stages.runtime import Runtime


class Line(Module):
    """y = w·x + b fitted to y = 3x, one number an example; `held` examples have y = −x."""

    def __init__(self, examples: int = 7, width: int = 1, stop_at: int = -1, held: tuple[int, ...] = ()) -> None:
        super().__init__(terms=[1.0] * examples, learning_rate=0.1)
        self.weight = torch.nn.Parameter(torch.zeros(width))
        self.stop_at = stop_at
        self.held = held
        self.forwards: list[list[int]] = []

    def loss(self, indices: list[int]) -> torch.Tensor:
        self.forwards.append(indices)
        if len(self.forwards) == self.stop_at:
            raise RuntimeError("the machine fails")
        x = torch.tensor(indices, dtype=torch.float32) / 5 + 1
        y = torch.tensor([-1.0 if i in self.held else 3.0 for i in indices]) * x
        return (self.weight.sum() * x - y).square().sum()


def batches(examples: int = 7, size: int = 3, epochs: float = 4) -> list[list[int]]:
    return length_batches([1] * examples, size, epochs, seed=0)


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    first = torch.rand(1)
    with seeded(0):
        inside = torch.rand(1)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with seeded(0):
        assert torch.equal(torch.rand(1), inside)


def test_fit_trains_reports_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    told: list[tuple[int, int, str]] = []
    module = Line()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = fit(module, batches(epochs=60), Runtime(progress=lambda *now: told.append(now)), "error")
    assert module.weight.item() == pytest.approx(3, abs=0.05)
    assert told[-1][:2] == (180, 180)
    assert told[-1][2].startswith("error ")
    assert done.steps == 180
    assert sorted(done.examples) == sorted([*range(7)] * 60)
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_accumulation_changes_the_portions_and_not_the_weights(accumulate: int):
    whole, cut = Line(), Line()
    fit(whole, batches(), Runtime())
    fit(cut, batches(), TrainingRuntime(accumulate=accumulate))
    assert len(cut.forwards) == accumulate * len(whole.forwards)
    assert cut.weight.item() == pytest.approx(whole.weight.item(), rel=1e-6)


def test_max_steps_ends_the_training_and_its_schedule():
    module = Line()
    assert fit(module, batches(), Runtime(), trainer=Trainer(max_steps=5)).steps == 5
    assert module.steps == 5
    assert module.forwards == batches()[:5]


def test_schedules_by_hand():
    # 10 steps, 2 of them warm-up: ½, 1, then 8 steps down; half-way (step 6) a cosine is at .1 + .45 = .55 too
    at = {name: Trainer(schedule=name, warmup=0.2) for name in ("cosine", "linear", "constant")}
    assert [t.scale(0, 10) for t in at.values()] == [0.5] * 3
    assert [t.scale(1, 10) for t in at.values()] == [1.0] * 3
    assert [t.scale(6, 10) for t in at.values()] == pytest.approx([0.55, 0.55, 1.0])
    assert at["cosine"].scale(4, 10) == pytest.approx(0.1 + 0.45 * (1 + 0.5**0.5))


def test_a_training_that_died_goes_on_to_the_same_weights(tmp_path: Path):
    whole, died, resumed = Line(), Line(stop_at=9), Line()
    fit(whole, batches(), Runtime())
    keeping = TrainingRuntime(checkpoints=tmp_path, checkpoint_every=2)
    with pytest.raises(RuntimeError, match="the machine fails"):
        fit(died, batches(), keeping)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    fit(resumed, batches(), TrainingRuntime(checkpoints=tmp_path))
    assert resumed.forwards == batches()[8:]  # the ninth forward failed; eight steps were kept
    assert torch.equal(resumed.weight, whole.weight)


def test_a_checkpoint_is_read_without_unpickling_and_resume_may_be_switched_off(tmp_path: Path):
    fit(Line(), batches()[:4], TrainingRuntime(checkpoints=tmp_path, checkpoint_every=2))
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert list(kept["state_dict"]) == ["weight"]
    anew = Line()
    fit(anew, batches()[:4], TrainingRuntime(checkpoints=tmp_path, resume=False))
    assert anew.forwards == batches()[:4]


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path):
    fit(Line(), batches()[:2], TrainingRuntime(checkpoints=tmp_path, checkpoint_every=1))
    with pytest.raises(BadInput, match=r"^runtime\.checkpoints: .*weight is \(1,\) in it and \(2,\) here; remove"):
        fit(Line(width=2), batches(), TrainingRuntime(checkpoints=tmp_path))


def test_early_stopping_keeps_the_best_weights():
    # Held-out examples want w = −1: the longer the training, the worse, so the first check is the best one.
    module = Line(examples=9, held=(7, 8))
    stop = Trainer(patience=2, check_every=3, schedule="constant", warmup=0)
    done = fit(module, batches(epochs=10), Runtime(rows=1), trainer=stop, heldout=[7, 8])
    first = Line()
    fit(first, batches()[:3], Runtime(), trainer=Trainer(schedule="constant", warmup=0))
    assert done.steps == 9  # checks after 3 (best), 6 and 9 steps
    assert module.weight.item() == pytest.approx(first.weight.item(), rel=1e-6)


def test_a_resumed_training_remembers_its_checks(tmp_path: Path):
    stop = Trainer(patience=2, check_every=3, schedule="constant", warmup=0)
    whole, died, resumed = (Line(examples=9, held=(7, 8), stop_at=at) for at in (-1, 9, -1))
    fit(whole, batches(epochs=10), Runtime(rows=9), trainer=stop, heldout=[7, 8])
    keeping = TrainingRuntime(rows=9, checkpoints=tmp_path, checkpoint_every=1)
    with pytest.raises(RuntimeError, match="the machine fails"):  # in step 7: six steps, two checks, this
        fit(died, batches(epochs=10), keeping, trainer=stop, heldout=[7, 8])
    done = fit(resumed, batches(epochs=10), TrainingRuntime(rows=9, checkpoints=tmp_path), trainer=stop, heldout=[7, 8])
    assert done.steps == 9  # the third check is the second bad one: the first bad one was before the failure
    assert torch.equal(resumed.weight, whole.weight)  # the best of all, from before the failure


class Broken(Line):
    """Its loss is nan from a forward on, the gradient of a square root at 0 is, or the loss of held-out examples."""

    def __init__(self, loss_at: int = -1, gradient_at: int = -1, **line) -> None:
        super().__init__(**line)
        self.loss_at, self.gradient_at = loss_at, gradient_at

    def loss(self, indices: list[int]) -> torch.Tensor:
        found = super().loss(indices)
        if len(self.forwards) == self.gradient_at:
            found = found + (self.weight * 0).sqrt().sum()  # 0, its gradient ∞·0
        return found * (math.nan if len(self.forwards) == self.loss_at or set(indices) & set(self.held) else 1)


@pytest.mark.parametrize(("accumulate", "at", "step"), [(1, 5, 5), (2, 5, 3), (2, 6, 3)])
def test_a_loss_that_is_not_finite_is_no_result(accumulate: int, at: int, step: int):
    with pytest.raises(FloatingPointError, match=rf"^nats a token is nan at step {step}; set a smaller learning_rate"):
        fit(Broken(loss_at=at), batches(), TrainingRuntime(accumulate=accumulate), "nats a token")


@pytest.mark.parametrize("last", [True, False])
def test_a_weight_that_is_not_finite_is_found_after_the_last_step_and_never_kept(tmp_path: Path, last: bool):
    steps = batches()[:4]
    keeping = TrainingRuntime(checkpoints=tmp_path, checkpoint_every=3, resume=False)
    at = 4 if last else 3
    with pytest.raises(FloatingPointError, match=rf"^value loss: weight weight is not finite after step {at}; set"):
        fit(Broken(gradient_at=at), steps, keeping, "value loss")
    assert (tmp_path / "last.ckpt").is_file() == last  # of step 3, where the weights were finite still


def test_held_out_losses_that_were_never_finite_do_not_end_a_training_in_silence():
    stop = Trainer(patience=2, check_every=3)
    with pytest.raises(FloatingPointError, match=r"^held-out DPO loss is nan at step 3; "):
        fit(Broken(held=(6,)), [[0, 1]] * 9, Runtime(), "DPO loss", trainer=stop, heldout=[6])


def test_an_interrupt_stays_an_interrupt():
    class Interrupted(Line):
        def loss(self, indices: list[int]) -> torch.Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), [[0]], Runtime())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "16"}, r"^trainer\.precision: '16' is not one of 32, bf16-mixed"),
        ({"schedule": "step"}, r"^trainer\.schedule: 'step'"),
        ({"warmup": 1.5}, r"^trainer\.warmup: 1.5"),
        ({"clip": -1.0}, r"^trainer\.clip: -1.0 is negative"),
        ({"max_steps": -1}, r"^trainer\.max_steps: -1 is negative"),
        ({"check_every": 0}, r"^trainer\.check_every: 0"),
    ],
)
def test_bad_settings_are_one_line(settings: dict, message: str):
    with pytest.raises(BadInput, match=message):
        fit(Line(), batches(), Runtime(), trainer=Trainer(**settings))


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        ({"device": "cuda"}, r"^runtime\.device: 'cuda' is no device of this machine; set trainer\.accelerator"),
        ({"device": "abacus"}, r"^runtime\.device: 'abacus' is no device"),
        ({"devices": 0}, r"^runtime\.devices: 0 is less than 1"),
        ({"accumulate": 0}, r"^runtime\.accumulate: 0 is less than 1"),
        ({"device": "cpu:0", "devices": 2}, r"^runtime\.device: cpu:0 is one device; write cpu for 2"),
        ({"strategy": "fsdp"}, r"^runtime\.strategy: 'fsdp'"),
    ],
)
def test_devices_that_are_not_there_are_one_line(machines: dict, message: str):
    if machines.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(BadInput, match=message):
        fit(Line(), batches(), TrainingRuntime(**machines))
