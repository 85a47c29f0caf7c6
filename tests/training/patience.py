"""Two processes, of which the main one works alone for longer than an exchange of a step may take: the other waits for
what it has to tell, and not for a gradient."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from flowmo.training import World


def say(text: str) -> None:
    """Write a line at once, so that those of two processes do not run into each other."""
    os.write(1, f"{text}\n".encode())


world = World.join("cpu", timedelta(seconds=2))
time.sleep(4 if world.main else 0)
say(f"{world.rank} {world.share('was told' if world.main else None)}")
time.sleep(4 if world.main else 0)
try:
    dist.all_reduce(torch.zeros(1))
except RuntimeError:
    say(f"{world.rank} waited no longer")
