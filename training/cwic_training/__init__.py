"""Training of cwic models: networks, data, losses, checkpoints and the fitted entropy model."""
