"""Losses, the loop, checkpoints and what is shown while training."""
