"""Sections 3.2-3.4: path, noise levels, time grids, guidance and sampler; all work on any ``(x_t, t) -> v``."""

from .grids import random_grid, shifted_grid, uniform_grid
from .guidance import PAPER_INTERVAL, Guidance, Velocity, level_from_sigma
from .integrate import integrate
from .noise import seeded_noise
from .noise_levels import LogitNormal, ThickTailedLogitNormal, Uniform
from .path import image_estimate, interpolate, velocity_from_estimate, velocity_target
from .solvers import Solver, euler, evaluations, function_evaluations, solve

__all__ = [
    "PAPER_INTERVAL",
    "Guidance",
    "LogitNormal",
    "Solver",
    "ThickTailedLogitNormal",
    "Uniform",
    "Velocity",
    "euler",
    "evaluations",
    "function_evaluations",
    "image_estimate",
    "integrate",
    "interpolate",
    "level_from_sigma",
    "random_grid",
    "seeded_noise",
    "shifted_grid",
    "solve",
    "uniform_grid",
    "velocity_from_estimate",
    "velocity_target",
]
