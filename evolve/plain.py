"""Values as JSON has them: for documents that programs read, and for lines that they follow."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """The same of texts, numbers, lists and mappings alone. null is what is no finite number; a moment is as in ISO."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return value.isoformat(timespec="seconds")
        case Path():
            return str(value)
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def document(value: Any) -> str:
    """One JSON document, for people too."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def line(value: Any) -> str:
    """One JSON object on a line."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
