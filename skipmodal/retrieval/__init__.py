"""Search between modalities by the cosine of u: an index, queries, recall, contact sheets."""
