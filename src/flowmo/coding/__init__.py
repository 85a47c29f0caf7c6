"""Images become token files and shards, and images again, a file or a data set at a time."""
