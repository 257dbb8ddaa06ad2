"""What PPO needs to go on where an earlier attempt died.

An iteration's draws depend on its number alone, so no state of a random generator is kept.
"""

from dataclasses import asdict

import torch

from stages.errors import BadInput
from stages.learn.policies.ppo_learner import Learner
from stages.learn.policies.ppo_loss import KLCoefficient


def save(learner: Learner, history: list[dict[str, float]]) -> None:
    """Saves after every `checkpoint_every` iterations, in one file."""
    folder, every = learner.stage.runtime.checkpoints, learner.machines.checkpoint_every
    if folder is None or not every or len(history) % every or learner.stage.runtime.rank:
        return
    trained = {n: p.detach().cpu() for n, p in learner.actor.named_parameters() if p.requires_grad}
    buffers = {"centre": learner.actor.centre, "spread": learner.actor.spread}
    state = {"trained": trained, "buffers": buffers, "optimizer": learner.optimizer.state_dict()}
    state |= {"history": history, "coefficient": asdict(learner.coefficient), "mean": learner.mean, "sd": learner.sd}
    torch.save(state | {"spent": learner.spent}, folder / "ppo.part")
    (folder / "ppo.part").replace(folder / "ppo.ckpt")


def restore(learner: Learner) -> list[dict[str, float]]:
    """Puts the learner where an earlier attempt was saved; gives the figures of the iterations that it had done."""
    folder = learner.stage.runtime.checkpoints
    if folder is None or not learner.machines.resume or not (folder / "ppo.ckpt").is_file():
        return []
    state = torch.load(folder / "ppo.ckpt", map_location=learner.fabric.device, weights_only=True)
    here = {n: p for n, p in learner.actor.named_parameters() if p.requires_grad}
    for name in sorted(here.keys() | state["trained"].keys()):
        shapes = [tuple(d[name].shape) if name in d else "missing" for d in (state["trained"], here)]
        if shapes[0] != shapes[1]:
            raise BadInput(
                "runtime.checkpoints",
                f"{folder / 'ppo.ckpt'} is of another architecture: {name} is {shapes[0]} in it and {shapes[1]} "
                "here; remove the file or set trainer.resume=false",
            )
    with torch.no_grad():
        for name, parameter in here.items():
            parameter.copy_(state["trained"][name])
        learner.actor.centre.copy_(state["buffers"]["centre"])
        learner.actor.spread.copy_(state["buffers"]["spread"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.coefficient = KLCoefficient(**state["coefficient"])
    learner.mean, learner.sd, learner.spent = state["mean"], state["sd"], state["spent"]
    return state["history"]
