"""Pascal VOC annotations: an .xml file for each picture, found by its stem; splits are lists of stems."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from trainer.api import DataError
from trainer.detection.data.labels import (
    FARTHEST_PX,
    BadLabel,
    Edges,
    Gathering,
    KnownLabels,
    Labels,
    NoLabels,
    from_pixels,
    reaches_outside,
    translate,
)
from trainer.detection.data.listing import in_folder, in_order, lines_of
from trainer.detection.data.memo import Table, remembered
from trainer.detection.data.pictures import UnreadablePicture, picture_size
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import DataSpec, draw_splits

XML_FOLDERS = ("Annotations", "annotations", "annots", "xmls", "labels")
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LIST_FOLDERS = ("ImageSets/Main", "ImageSets", ".")


@dataclass(frozen=True)
class Thing:
    """One <object>: its class, its corners as they stand there, and whether it is marked difficult."""

    name: str
    edges: Edges
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """What an .xml file says: the picture's stated size (0, 0 if none), and each object or why it cannot be right."""

    file: Path
    filename: str
    size: tuple[int, int]
    things: tuple[Thing | BadLabel, ...]

    @property
    def boxes(self) -> list[Edges]:
        return [thing.edges for thing in self.things if isinstance(thing, Thing)]


def read_voc_folder(root: Path, folder: Path) -> DataSpec:
    """The data set in a folder of .xml files and pictures.

    The .xml files lie in `Annotations` (or another of XML_FOLDERS), or beside the pictures, at any depth. Splits are
    the lists in ImageSets/Main, or else folders named train and val (or valid), or else drawn (see draw_splits). The
    class names are those that the .xml files use, in alphabetical order. `folder` is the cache's. Raises DataError.
    """
    xmls = find_xmls(root)
    if not xmls:
        raise DataError(f"{root} holds no .xml annotation file")
    images = sorted(in_folder(root), key=in_order)
    pairs, lost = pair(images, xmls)
    problems: dict[str, tuple[Problem, ...]] = {}
    splits = _listed(root, images) or _in_split_folders(root, images)
    if splits is None:
        splits, problem = draw_splits(sorted(pairs, key=in_order), root)
        problems["train"] = (problem,)
        lost += [
            Problem(file, None, "image left out: it has no annotation file") for file in images if file not in pairs
        ]
    names, readers = voc_readers(splits, pairs, None, root, folder)
    return DataSpec(root, names, splits, readers, problems | {"train": (*problems.get("train", ()), *lost)})


def voc_readers(
    splits: Mapping[str, Sequence[Path]],
    pairs: Mapping[Path, Path],
    names: tuple[str, ...] | None,
    source: Path,
    folder: Path,
) -> tuple[tuple[str, ...], dict[str, KnownLabels]]:
    """The class names and a reader for each split, whose pictures have their annotations as `pairs` says."""
    images = [image for image in dict.fromkeys(image for files in splits.values() for image in files) if image in pairs]
    xmls = [pairs[image] for image in images]
    both = [*images, *xmls]  # an .xml without a size has that of its picture
    table = remembered(["VOC", *map(str, both)], both, folder, lambda: _read_all(images, xmls))
    if not table.names:
        raise DataError(f"no .xml file of {source} has an object, so that there is no class to learn")
    names = names or table.names
    labels = {
        image: translate(of_image, table.names, names, xml)
        for image, xml, of_image in zip(images, xmls, table.labels, strict=True)
    }
    return names, dict.fromkeys(splits, KnownLabels("Pascal VOC", labels, dict(zip(images, xmls, strict=True))))


def _read_all(images: Sequence[Path], xmls: Sequence[Path]) -> Table:
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(_try_read, xmls))
    annotations = [found for found in read if isinstance(found, Annotation)]
    names = sorted({thing.name for found in annotations for thing in found.things if isinstance(thing, Thing)})
    ids = {name: i for i, name in enumerate(names)}
    shift = _origin([box for found in annotations for box in found.boxes])
    labels = [
        found if isinstance(found, NoLabels) else _to_labels(found, image, ids, shift)
        for image, found in zip(images, read, strict=True)
    ]
    return Table(labels, tuple(names))


def find_xmls(root: Path) -> list[Path]:
    """The .xml files of a data set, in its folder for them or at any depth."""
    for name in XML_FOLDERS:
        if found := sorted((root / name).rglob("*.xml"), key=in_order):
            return found
    return sorted(file for file in root.rglob("*.xml") if not file.name.startswith("."))


def xmls_for(images: Iterable[Path]) -> list[Path]:
    """The .xml files beside these images, or in a folder for them beside theirs."""
    folders = sorted({image.parent for image in images})
    found = [file for folder in folders for file in sorted(folder.glob("*.xml"))]
    for folder in folders:
        for name in XML_FOLDERS:
            beside = folder.parent / name
            mirrored = folder.parent.parent / name / folder.name  # images/train/a.jpg and Annotations/train/a.xml
            found += sorted({*beside.glob("*.xml"), *mirrored.glob("*.xml")} - set(found))
    return found


def pair(images: Sequence[Path], xmls: Sequence[Path]) -> tuple[dict[Path, Path], list[Problem]]:
    """Which image has which .xml, and the .xml files without an image.

    They belong together by stem, as in the VOC devkit; what stands in <filename> counts only where that leads nowhere,
    since tools leave there what the file was called before. Of several images with one stem it is the one in a folder
    of the same name.
    """
    by_stem: dict[str, list[Path]] = {}
    for image in images:
        by_stem.setdefault(image.stem, []).append(image)
    pairs: dict[Path, Path] = {}
    lost = []
    for xml in xmls:
        candidates = by_stem.get(xml.stem) or _by_filename(xml, by_stem)
        near = [image for image in candidates if image.parent == xml.parent]
        near = near or [image for image in candidates if image.parent.name == xml.parent.name] or candidates
        if near and near[0] not in pairs:
            pairs[near[0]] = xml
        else:
            lost.append(Problem(xml, None, "annotation file without an image"))
    return pairs, lost


def stems_of(file: Path) -> list[str]:
    """The stems that a list of ImageSets/Main names; lists of one class have a -1, 0 or 1 behind each."""
    return [line.rsplit(maxsplit=1)[0] if line.endswith((" 1", " -1", " 0")) else line for line in lines_of(file)]


def with_stems(file: Path, images: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """The images that a list names; a stem without an image stays, as a .jpg that reading the split reports."""
    by_name = {image.stem: image for image in images} | {image.name: image for image in images}
    return tuple(sorted({by_name.get(stem) or folder / f"{stem}.jpg" for stem in stems_of(file)}))


def parse(content: bytes, file: Path) -> Annotation:
    """What an .xml file says. Raises NoLabels if it is none; a document type is refused, since it could hold bombs."""
    try:
        tree = _parse_xml(content)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NoLabels(file, "image dropped: its annotation file is not XML", str(error)) from None
    size = tree.find("size")
    width, height = (_whole(size, name) for name in ("width", "height"))
    things = tuple(_thing(element) for element in tree.findall("object"))
    return Annotation(file, (tree.findtext("filename") or "").strip(), (width, height), things)


def _parse_xml(content: bytes) -> Element:
    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type")

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True
    parser.Parse(content, True)
    return builder.close()


def _whole(size: Element | None, name: str) -> int:
    try:
        stated = float(size.findtext(name) or 0) if size is not None else 0.0
    except ValueError:
        return 0
    return int(stated) if 1 <= stated <= FARTHEST_PX else 0


def _thing(element: Element) -> Thing | BadLabel:
    name = (element.findtext("name") or "").strip()
    if not name:
        return BadLabel("an object without a class name")
    box = element.find("bndbox")
    if box is None:
        return BadLabel("an object without a bndbox", name)
    texts = [(box.findtext(corner) or "").strip() for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, texts)
    except ValueError:
        return BadLabel("not a number", " ".join(texts)[:60])
    return Thing(name, (x1, y1, x2, y2), (element.findtext("difficult") or "").strip() == "1")


def _try_read(file: Path) -> Annotation | NoLabels:
    try:
        return parse(file.read_bytes(), file)
    except OSError as error:
        return NoLabels(file, "image dropped: its labels cannot be read", error.strerror or str(error))
    except NoLabels as why:
        return why


def _origin(boxes: Sequence[Edges]) -> float:
    """What to take from xmin and ymin: 1 if the first pixel is called 1, 0 if coordinates begin at 0.

    In the VOC devkit the first pixel is (1, 1) and the last is included, so that a box covers xmin - 1 to xmax; so
    reads it Detectron2 (0.6, data/datasets/pascal_voc.py). Tools that begin at 0 or write fractions are told by their
    boxes: more begin below 1 than at 1, or most have fractions.
    """
    begins = [edge for x1, y1, _, _ in boxes for edge in (x1, y1)]
    fractions = sum(not edge.is_integer() for edge in begins)
    return 0.0 if sum(edge < 1 for edge in begins) > begins.count(1.0) or 2 * fractions > len(begins) else 1.0


def _to_labels(found: Annotation, image: Path, ids: Mapping[str, int], shift: float) -> Labels | NoLabels:
    try:
        size = _size(found, image)
    except (OSError, UnreadablePicture) as error:
        return NoLabels(image, "image dropped: it cannot be read", str(error))
    gathering = Gathering(found.file, "box")
    for number, thing in enumerate(found.things, start=1):
        try:
            if isinstance(thing, BadLabel):
                raise BadLabel(thing.what, f"object {number}" + (f": {thing.detail}" if thing.detail else ""))
            if thing.difficult:  # as VOC's own score leaves them out, and Darknet's voc_label.py
                raise BadLabel("marked as difficult", f"object {number}")
            x1, y1, x2, y2 = thing.edges
            if x2 <= x1 or y2 <= y1:  # as they stand there: a click, not a pixel
                raise BadLabel("a box without area", " ".join(f"{edge:g}" for edge in thing.edges))
            gathering.add(
                ids[thing.name], from_pixels((x1 - shift, y1 - shift, x2, y2), size), None, None, f"object {number}"
            )
        except BadLabel as bad:
            gathering.drop(None, bad)
    return gathering.labels(size)


def _size(found: Annotation, image: Path) -> tuple[int, int]:
    """The stated size, or the picture's own where none is stated or all boxes fit into that one only.

    Raises OSError, UnreadablePicture.
    """
    if 0 not in found.size and not reaches_outside(found.boxes, found.size):
        return found.size
    own = picture_size(image)
    return own if 0 in found.size or not reaches_outside(found.boxes, own) else found.size


def _by_filename(xml: Path, by_stem: Mapping[str, list[Path]]) -> list[Path]:
    found = _try_read(xml)
    if isinstance(found, NoLabels) or not found.filename:
        return []
    name = found.filename.replace("\\", "/").rsplit("/", 1)[-1]
    return by_stem.get(os.path.splitext(name)[0]) or by_stem.get(name) or []


def _listed(root: Path, images: Sequence[Path]) -> dict[str, tuple[Path, ...]] | None:
    for folder in LIST_FOLDERS:
        lists = {split: root / folder / f"{split}.txt" for split in SPLIT_FOLDERS}
        if lists["train"].is_file() and lists["val"].is_file():
            where = root / "JPEGImages"
            splits = {split: with_stems(file, images, where) for split, file in lists.items() if file.is_file()}
            if "test" in splits and not splits["test"]:
                del splits["test"]
            for split, files in splits.items():
                if not files:
                    raise DataError(f"{lists[split]} names no picture")
            return splits
    return None


def _in_split_folders(root: Path, images: Sequence[Path]) -> dict[str, tuple[Path, ...]] | None:
    """Splits by a folder of that name anywhere on the way to a picture."""
    splits: dict[str, tuple[Path, ...]] = {}
    for split, folders in SPLIT_FOLDERS.items():
        if found := tuple(image for image in images if set(folders) & set(image.relative_to(root).parts[:-1])):
            splits[split] = found
    return splits if "train" in splits and "val" in splits else None
