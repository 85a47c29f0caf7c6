"""How a run does: log lines, the bar, norms, validation and early stopping."""
