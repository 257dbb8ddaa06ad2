"""What goes along with a training: progress, checkpoints, early stopping, silence."""

import logging
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.errors import BadInput
from stages.learn.loop.watch import Checkpoints, EarlyStopping, Progress, quiet, require_finite
from stages.runtime import Runtime


class One(torch.nn.Module):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([value]))
        self.frozen = torch.nn.Parameter(torch.tensor([math.nan]), requires_grad=False)


def trainer(step: int, **fields: Any) -> Any:
    """As much of a Lightning trainer as callbacks read."""
    given = {"global_step": step, "max_steps": 10, "accumulate_grad_batches": 1, "callback_metrics": {}}
    return SimpleNamespace(**given | fields)


def test_only_trained_weights_have_to_be_finite():
    require_finite(One(), "loss", 3)
    with pytest.raises(FloatingPointError, match=r"^value loss: weight weight is not finite after step 3; set a small"):
        require_finite(One(math.inf), "value loss", 3)


def test_progress_is_a_running_mean_of_whole_steps():
    told: list[tuple[int, int, str]] = []
    progress = Progress(Runtime(progress=lambda *now: told.append(now)), "loss")
    # two parts a step: Lightning divides each part's loss by 2. 4, then .9·4 + .1·2 = 3.8
    progress.on_train_batch_end(trainer(1, accumulate_grad_batches=2), Any, {"loss": 2.0}, None, 0)  # type: ignore[arg-type]
    progress.on_train_batch_end(trainer(10, accumulate_grad_batches=2), Any, 1.0, None, 1)  # type: ignore[arg-type]
    assert progress.mean == pytest.approx(3.8)
    assert told[0] == (1, 10, "loss 4.000")
    assert told[-1] == (10, 10, "loss 3.800")  # the last step is told however soon it comes


def test_the_held_out_loss_stands_beside_the_loss():
    told: list[tuple[int, int, str]] = []
    progress = Progress(Runtime(progress=lambda *now: told.append(now)), "loss")
    metrics = {"heldout_loss": torch.tensor(0.5)}
    progress.on_train_batch_end(trainer(10, callback_metrics=metrics), Any, 1.0, None, 9)  # type: ignore[arg-type]
    assert told == [(10, 10, "loss 1.000 held-out 0.500")]


def test_the_step_whose_loss_is_not_finite_is_named():
    # parts 4 and 5 (from 0) of two a step are step 3
    with pytest.raises(FloatingPointError, match=r"^loss is nan at step 3; "):
        Progress(Runtime(), "loss").on_train_batch_end(
            trainer(2, accumulate_grad_batches=2),
            Any,  # type: ignore[arg-type]
            math.nan,
            None,
            4,
        )


def saving(step: int) -> Any:
    """A trainer that writes its step."""

    def save(path: Path) -> None:
        path.write_text(str(step))

    return trainer(step, save_checkpoint=save, is_global_zero=True)


def test_a_checkpoint_is_replaced_every_so_many_steps_and_once_a_step(tmp_path: Path):
    kept = Checkpoints(tmp_path, 2, One())
    kept.on_train_batch_end(saving(1))
    assert list(tmp_path.iterdir()) == []
    for step in (2, 3, 4):
        kept.on_train_batch_end(saving(step))
    assert (tmp_path / "last.ckpt").read_text() == "4"
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    kept.on_train_batch_end(saving(4))  # another part of the same step
    assert kept.saved == 4


def test_a_checkpoint_waits_for_the_check_of_its_own_step(tmp_path: Path):
    kept = Checkpoints(tmp_path, 2, One(), check_every=4)
    kept.on_train_batch_end(saving(4))
    assert not (tmp_path / "last.ckpt").exists()
    kept.on_validation_end(saving(4), Any)  # type: ignore[arg-type]
    assert (tmp_path / "last.ckpt").read_text() == "4"


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path):
    with pytest.raises(FloatingPointError, match="is not finite after step 2"):
        Checkpoints(tmp_path, 2, One(math.nan)).on_train_batch_end(saving(2))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_shape_is_refused_and_without_a_folder_there_is_none(tmp_path: Path):
    assert Checkpoints(None, 2, One()).last() is None
    assert Checkpoints(tmp_path, 2, One()).last() is None
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "last.ckpt")
    assert Checkpoints(tmp_path, 2, One()).last() == str(tmp_path / "last.ckpt")
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "last.ckpt")
    with pytest.raises(BadInput, match=r"^runtime\.checkpoints: .*weight is \(2,\) in it and \(1,\) here; remove"):
        Checkpoints(tmp_path, 2, One()).last()
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(BadInput, match=r"weight is missing in it and \(1,\) here"):
        Checkpoints(tmp_path, 2, One()).last()


def check(stopping: EarlyStopping, loss: float, module: One, weight: float) -> bool:
    """One held-out check; whether the training is to end."""
    with torch.no_grad():
        module.weight.fill_(weight)
    now = trainer(1, callback_metrics={"heldout_loss": torch.tensor(loss)}, should_stop=False)
    stopping.on_validation_end(now, Any)  # type: ignore[arg-type]
    return now.should_stop


def test_the_best_weights_are_kept_and_patience_counts_checks_in_a_row():
    module = One()
    stopping = EarlyStopping(2, module)
    ends = [check(stopping, loss, module, place) for place, loss in enumerate([1.0, 2.0, 0.5, 0.6, 0.7])]
    assert ends == [False, False, False, False, True]
    stopping.restore()
    assert module.weight.item() == 2  # of the third check
    assert module.frozen.isnan().all()


def test_stopping_goes_on_from_its_own_state():
    module, again = One(), One()
    first, second = EarlyStopping(2, module), EarlyStopping(2, again)
    check(first, 0.5, module, 7.0)
    check(first, 0.6, module, 8.0)
    second.load_state_dict(first.state_dict())
    assert check(second, 0.6, again, 9.0)
    second.restore()
    assert again.weight.item() == 7


def test_a_first_check_that_is_not_finite_ends_the_training():
    module = One()
    with pytest.raises(FloatingPointError, match=r"^held-out loss is nan at step 1; "):
        check(EarlyStopping(2, module), math.nan, module, 1.0)


def test_notices_are_silent_inside_and_as_they_were_outside():
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("inside", stacklevel=1)
            assert logger.level == logging.ERROR
        warnings.warn("outside", stacklevel=1)
    assert [str(w.message) for w in seen] == ["outside"]
    assert logger.level == before
