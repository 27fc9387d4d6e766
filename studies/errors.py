"""What can go wrong with a study, in one sentence that its user can act on."""

from __future__ import annotations


class StudyError(Exception):
    """A study, its storage, sampler or pruner cannot be had as asked; the message says why, and what would be right."""
