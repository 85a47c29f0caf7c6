"""Evaluation measures models and pictures (Section 4)."""
