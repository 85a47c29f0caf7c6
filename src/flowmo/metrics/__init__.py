"""Metrics (Section 4) take images and features and return numbers; they know no models and no files of results."""
