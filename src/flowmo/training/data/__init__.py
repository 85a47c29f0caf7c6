"""What a run is fed: images, or tokens and their labels."""
