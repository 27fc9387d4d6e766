"""From a data set's own files, in any of four formats, to decoded pictures and boxes; knows no torch."""

from trainer.detection.data.cache import DecodedOnDemand, Images
from trainer.detection.data.find import find_data
from trainer.detection.data.imbalance import class_weights, image_weights
from trainer.detection.data.problems import Problem, summarise
from trainer.detection.data.spec import DataSpec
from trainer.detection.data.split import Split, leaks, load_split

__all__ = [
    "DataSpec",
    "DecodedOnDemand",
    "Images",
    "Problem",
    "Split",
    "class_weights",
    "find_data",
    "image_weights",
    "leaks",
    "load_split",
    "summarise",
]
