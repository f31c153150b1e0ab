"""Speeds of sk_mlp beside its peers: ratios of medians from one interleaved run."""
