"""Section 4: images and features in, numbers out; no models, no files of results."""
