"""Encoders, bottleneck, decoders and the model they make."""
