"""What --data may name: a built-in data set, a data.yaml, a Darknet .data file, a COCO .json, or a folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from trainer.api import DataError
from trainer.detection.data import digits
from trainer.detection.data.cache import cache_folder
from trainer.detection.data.coco import find_coco_files, read_coco
from trainer.detection.data.darknet_data import read_data_file
from trainer.detection.data.datayaml import read_yaml
from trainer.detection.data.spec import DataSpec
from trainer.detection.data.voc import find_xmls, read_voc_folder

BUILT_IN = ("digits",)
EXPECTED = "expected a data.yaml, a Darknet .data file, a COCO .json, a folder, or a built-in data set (digits)"


def find_data(data: str, cache_dir: Path | None = None, *, single_cls: bool = False) -> DataSpec:
    """The data set that `data` names. Raises DataError with one sentence for whatever does not hold.

    - 'digits', which is drawn into the cache folder at first.
    - A data.yaml: `names` (a list, or a mapping 0, 1, 2, ... -> name), `train`, `val` and perhaps `test`, `path`, `nc`
      and `images`. `path` is relative to the yaml's own folder, and is that folder when missing. A split is a folder
      (searched through all its subfolders), a list of folders, or a .txt file with an image a line, relative to the
      .txt file's folder or to `path`; labels are YOLO's or, where there are none, VOC's. Or it is a COCO .json, whose
      images lie in `images` or where they are found. With VOC and COCO `names` may be missing.
    - A Darknet .data file (see read_data_file), or one COCO .json, from which splits are drawn.
    - A folder that holds a data.yaml, COCO .json files (see find_coco_files) or VOC's .xml files (see read_voc_folder).

    With `single_cls` all its classes are taken for one.
    """
    folder = cache_folder(cache_dir)
    spec = read_yaml(digits.materialise(cache_dir), folder) if data in BUILT_IN else _read(_existing(data), folder)
    return spec.as_single_class() if single_cls else spec


def _read(path: Path, cache: Path) -> DataSpec:
    if path.is_dir():
        return _read_folder(path, cache)
    suffix = path.suffix.lower()
    if suffix == ".data":
        return read_data_file(path)
    if suffix == ".json":
        return read_coco({"all": path}, path, cache)
    return read_yaml(path, cache)


def _read_folder(folder: Path, cache: Path) -> DataSpec:
    yamls = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.yml"))
    stated = [path for path in yamls if path.stem == "data"] or yamls
    if len(stated) == 1:
        return read_yaml(stated[0], cache)
    if len(stated) > 1:
        raise DataError(f"{folder} holds {len(stated)} yaml files, name the one that is meant: try {stated[0]}")
    if jsons := find_coco_files(folder):
        missing = [split for split in ("train", "val") if split not in jsons and "all" not in jsons]
        if missing:
            raise DataError(
                f"{folder} has no .json for '{missing[0]}', only {', '.join(file.name for file in jsons.values())}"
            )
        return read_coco(jsons, folder, cache)
    if find_xmls(folder):
        return read_voc_folder(folder, cache)
    raise DataError(
        f"{folder} is a folder without a data.yaml, a COCO .json or VOC .xml files: for YOLO labels write a data.yaml"
    )


def _existing(data: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(data)))
    if os.path.exists(path):
        return path
    if path.suffix in (".yaml", ".yml", ".data", ".json"):
        raise DataError(f"there is no file {path}: {EXPECTED}")
    near = difflib.get_close_matches(data, BUILT_IN, n=1)
    raise DataError(
        f"there is no data set '{data}'" + (f" (did you mean '{near[0]}'?)" if near else "") + f": {EXPECTED}"
    )
