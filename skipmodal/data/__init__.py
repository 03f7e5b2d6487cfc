"""Prepared datasets: making them, opening them, batching them."""
