"""What a run is told: its settings, where they come from, and how they are stored."""
