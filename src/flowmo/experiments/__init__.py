"""Each figure or table of the paper that is an experiment on one model has its file here."""
