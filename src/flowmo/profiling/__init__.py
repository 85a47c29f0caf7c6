"""Section 4.1: operations, memory and speed of models and of trainings."""
