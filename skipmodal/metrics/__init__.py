"""Caption scores, error rates, and the recognisers that hear speech."""
