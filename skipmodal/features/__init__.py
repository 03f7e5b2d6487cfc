"""Frozen, published encoders: what prep computes, and what the image encoder starts from."""
