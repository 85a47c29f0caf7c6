"""Section 4: measuring models and pictures."""
