"""From a data.yaml to decoded pictures and boxes in memory-mapped arrays; knows no torch."""

from trainer.detection.data.problems import Problem, summarise
from trainer.detection.data.spec import DataSpec, find_data
from trainer.detection.data.split import Split, load_split

__all__ = ["DataSpec", "Problem", "Split", "find_data", "load_split", "summarise"]
