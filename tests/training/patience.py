"""Two processes, of which the main one works alone for longer than an exchange of a step may take: the other waits for
what it has to tell, and not for a gradient."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from flowmo.training import World

world = World.join("cpu", timedelta(seconds=2))
time.sleep(4 if world.main else 0)
print(f"{world.rank} {world.share('was told' if world.main else None)}", flush=True)
time.sleep(4 if world.main else 0)
try:
    dist.all_reduce(torch.zeros(1))
except RuntimeError:
    print(f"{world.rank} waited no longer", flush=True)
