"""FlowMo: a picture to a few hundred bytes and back (mode-seeking diffusion autoencoders, ICCV 2025)."""
