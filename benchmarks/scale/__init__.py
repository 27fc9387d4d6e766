"""Benchmarks of a study that many workers share, in virtual time and in real processes."""
