"""Several processes in one run, and what they agree on."""
