"""A whole job in one call, as a notebook makes it and a command: train, generate images of classes, make a gallery."""
