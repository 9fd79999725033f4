"""Consensus: a pure core, its log on disk, and the shell that drives them."""
