"""The state of a run on disk, and the folder that holds it."""
