"""What may vary: params, spaces, and the files that hold them. Imports nothing of ours."""

from search_spaces.files import available_spaces, dump_hyp, dump_space, load_hyp, load_space, read_scalar
from search_spaces.space import Hyp, Param, Space, SpaceError, Value

__all__ = [
    "Hyp",
    "Param",
    "Space",
    "SpaceError",
    "Value",
    "available_spaces",
    "dump_hyp",
    "dump_space",
    "load_hyp",
    "load_space",
    "read_scalar",
]
