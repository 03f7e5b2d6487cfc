"""The three decoders, each from a latent (paper, section 3.3 and appendix 6.3)."""
