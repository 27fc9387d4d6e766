"""Benchmarks of a study that many workers share, and of what becomes of files that nobody writes on purpose."""
