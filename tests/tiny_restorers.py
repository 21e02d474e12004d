"""The restorers of photographs with the real classes at a few thousand parameters."""

from backends import models


def tiny():
    import torch

    from backends.nets.restorers import NoiseUNet, RestorationUNet
    from backends.restore.restorers import ARMS, TASKS, Restorers

    torch.manual_seed(0)
    nets = {f"{task}-{arm}": RestorationUNet(widths=(8, 8)) for task in TASKS for arm in ARMS}
    noisers = {task: NoiseUNet(widths=(8, 8)) for task in TASKS}
    for net in (*nets.values(), *noisers.values()):
        net.eval().requires_grad_(False)
    return Restorers(models.get("restorers"), nets, noisers)
