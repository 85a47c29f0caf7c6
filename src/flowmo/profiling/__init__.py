"""Profiling counts operations and measures memory and speed of models and of trainings (Section 4.1)."""
