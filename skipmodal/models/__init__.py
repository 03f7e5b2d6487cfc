"""The model: encoders, the bottleneck that all modalities share, decoders."""
