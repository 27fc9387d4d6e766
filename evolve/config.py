"""What a study was asked for: defaults, then the --config file, then the flags, resolved once into one frozen value."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from evolve.budget import seconds_of
from search_spaces import Value
from search_spaces.files import BoundedLoader
from search_spaces.space import did_you_mean as near
from search_spaces.space import shown
from trainer import TrainOptions

MASK = "***"
BACKENDS = ("loky", "dask", "ray")
COLUMNS = ("epoch_column", "precision", "recall", "map50", "map50_95")
"""Where a program that trains tells of an epoch: columns of a file, or keys of JSON."""

_OPTIONS = TrainOptions()
OWN_DATA: Mapping[str, Any] = {"model": "nano", "imgsz": 320}
"""Defaults for a data set of one's own: those of TrainOptions serve the small pictures of the built-in one."""

_PROGRAM: Mapping[str, Any] = {"data": "", "model": "", "imgsz": 640, "batch": 16, "threads": 0}
USUAL: Mapping[str, Mapping[str, Any]] = {
    "ultralytics": {**_PROGRAM, "space": "ultralytics", "model": "yolov8n.yaml", "schedule": "linear"},
    "command": {**_PROGRAM, "space": ""},
    "yolov5": {**_PROGRAM, "space": "yolov5"},
    "yolov7": {**_PROGRAM, "space": "yolov7"},
    "yolov3": {**_PROGRAM, "space": "yolov3", "fitness": "recall=0.01,map50=0.99"},  # it measures no mAP50-95
}
"""Defaults for trainers of others, by their names; none of theirs is our data or model."""
PROGRAMS = ("command", "yolov5", "yolov7", "yolov3")
"""Those that are programs which we run."""


class ConfigError(Exception):
    """The user asked for something that cannot be; the message says what, in one sentence."""


@dataclass(frozen=True)
class EvolveConfig:
    """Everything that `evolve run` can be told. Its fields are the keys of evolve.yaml and the flags (see `key_of`).

    While they are not given, `model`, `imgsz` and `study` depend on the data: `complete` fills them in.
    """

    data: str = _OPTIONS.data
    model: str | None = None
    epochs: int = _OPTIONS.epochs
    imgsz: int | None = None
    batch: int = _OPTIONS.batch
    device: str = _OPTIONS.device
    optimizer: str = _OPTIONS.optimizer
    schedule: str = _OPTIONS.schedule
    threads: int = _OPTIONS.threads
    seed: int = _OPTIONS.seed
    weights: str = _OPTIONS.weights
    freeze_layers: str = _OPTIONS.freeze_layers
    freeze_epochs: int = _OPTIONS.freeze_epochs
    freeze_batch: int = _OPTIONS.freeze_batch
    nominal_batch: int = _OPTIONS.nominal_batch
    single_cls: bool = _OPTIONS.single_cls
    rect: bool = _OPTIONS.rect
    multi_scale: bool = _OPTIONS.multi_scale
    image_weights: bool = _OPTIONS.image_weights
    cache: str = _OPTIONS.cache
    amp: str = _OPTIONS.amp
    sync_bn: bool = _OPTIONS.sync_bn
    notest: bool = _OPTIONS.notest
    generations: int = 300
    base_seeds: int | None = None
    budget: str | None = None
    patience: int | None = None
    target: float | None = None
    fitness: str = "map50=0.1,map50_95=0.9"
    objective: str = "fitness"
    trainer: str = "detection"
    command: tuple[str, ...] = ()
    repo: str | None = None
    metrics: str | None = None
    epoch_column: str | None = None
    precision: str | None = None
    recall: str | None = None
    map50: str | None = None
    map50_95: str | None = None
    space: str = "detection"
    hyp: str | None = None
    from_: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    set: Mapping[str, Value] = field(default_factory=dict)
    sampler: str = "genetic"
    pruner: str = "evolve"
    study: str = ""
    runs: str = "runs"
    storage: str | None = None
    bucket: str | None = None
    log_to: tuple[str, ...] = ()
    race: int | None = None
    jobs: int | None = None
    per_device: int | None = None
    backend: str = "loky"
    address: str | None = None
    retries: int = 3
    checkpoint: bool = False
    keep: int = 3
    max_failures: int = 10
    trial_timeout: int | None = None

    def train_options(self) -> TrainOptions:
        """What all trainings of the study have in common; `seed` is the study's, each trial adds its generation."""
        shared = {option.name for option in dataclasses.fields(TrainOptions)} & vars(self).keys()
        given = {name: value for name in shared if (value := getattr(self, name)) is not None}
        suited = {} if self.data == _OPTIONS.data else OWN_DATA
        return TrainOptions(**{**suited, **given})


def resolve_config(flags: Mapping[str, Any], path: Path | None = None) -> EvolveConfig:
    """Defaults < the file at `path` < flags (those that are None were not given), completed. Raises ConfigError."""
    given = {**(read_config(path) if path else {}), **{key: value for key, value in flags.items() if value is not None}}
    config = EvolveConfig(**{**usual_of(given.get("trainer", "")), **given})
    if config.storage and MASK in config.storage:
        raise ConfigError(f"the storage in {path} lacks its password: give the URL with --storage or EVOLVE_STORAGE")
    if config.bucket and MASK in config.bucket:
        raise ConfigError(f"the bucket in {path} lacks its password: give the URL with --bucket")
    if any(MASK in place for place in config.log_to):
        raise ConfigError(f"a place in {path} lacks its password: give its URI with --log-to")
    if any(MASK in source for source in config.from_):
        raise ConfigError(f"a source in {path} lacks its password: give its URL with --from")
    check_weights(config, str(path))
    return complete(config)


def check_weights(config: EvolveConfig, where: str, way_out: str = "give the URL with --weights") -> None:
    """Raise ConfigError where the weights are a URL that was written down there without its password."""
    if MASK in config.weights:
        raise ConfigError(f"the weights in {where} lack their password: {way_out}")


def usual_of(trainer: str) -> Mapping[str, Any]:
    """The defaults of a trainer, as far as they are not everybody's."""
    return USUAL.get(trainer, {})


def complete(config: EvolveConfig) -> EvolveConfig:
    """The same configuration as it means the same from any folder, checked. Raises ConfigError.

    What names an existing file becomes an absolute path, a study without a name takes that of its data, and a model or
    an image size that was not given is the one that suits the data.
    """
    options = config.train_options()
    config = dataclasses.replace(
        config,
        data=_absolute(config.data),
        model=_absolute(options.model),
        imgsz=options.imgsz,
        weights=_absolute(config.weights) if config.weights else "",
        space=_absolute(config.space),
        hyp=_absolute(config.hyp) if config.hyp else None,
        command=tuple(map(_absolute, config.command)),
        repo=str(Path(config.repo).absolute()) if config.repo else None,
        from_=tuple(map(_absolute, config.from_)),
        trainer=_absolute(config.trainer),
        runs=str(Path(config.runs).absolute()),
    )
    config = dataclasses.replace(config, study=config.study or _name_after(config.data or config.trainer))
    _check(config)
    return config


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a configuration file, each of its field's type. Raises ConfigError for a wrong key or value."""
    return _fields(read_settings(path, _TYPES))


def parse_config(text: str, where: str) -> dict[str, Any]:
    """The same of a text, which lies there."""
    return _fields(parse_settings(text, _TYPES, where))


def key_of(name: str) -> str:
    """The key in evolve.yaml of a field, whose name may be a word of Python: 'from' of `from_`."""
    return name.removesuffix("_")


def read_settings(path: Path, types: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a YAML file, each of its type in `types`. Raises ConfigError for a wrong key or value."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {_reason(error)}") from error
    return parse_settings(text, types, str(path))


def parse_settings(text: str, types: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same of YAML that lies there."""
    try:
        content = yaml.load(text, Loader=BoundedLoader)
    except RecursionError as error:
        raise ConfigError(f"{where} is not YAML: it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is not a configuration: expected 'key: value' lines, got {_described(content)}")
    return _settings(content, types, where)


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that Python's keyword arguments give, each of its type. Raises ConfigError.

    They are named as fields are, a path may be a Path, and names a tuple of them.
    """
    content = {key_of(name): _listed(value) for name, value in given.items()}
    return _fields(_settings(content, _TYPES, "the arguments of evolve()"))


def _settings(content: Mapping[Any, Any], types: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in content:
        if key not in types:
            raise ConfigError(f"unknown key {shown(key)} in {where}{did_you_mean(str(key), types)}")
    return {key: _typed(_as_text(key, value), types[key], f"{key} in {where}") for key, value in content.items()}


def _listed(value: object) -> object:
    """As YAML would hold it."""
    match value:
        case os.PathLike():
            return os.fspath(value)
        case Mapping():
            return dict(value)
        case tuple() | list():
            return [_listed(item) for item in value]
    return value


def dump_config(config: EvolveConfig) -> str:
    """The configuration as YAML that `read_config` takes back; passwords in its URLs are masked."""
    content = {key_of(name): _plain(value) for name, value in vars(config).items() if value is not None}
    content["from"] = [mask_url(source) for source in config.from_]
    content["log_to"] = [mask_url(place) for place in config.log_to]
    content["weights"] = mask_url(config.weights)
    header = "# What this study was asked for. `evolve run --config` with this file repeats it.\n"
    for key, flags in (("storage", "--storage or EVOLVE_STORAGE"), ("bucket", "--bucket")):
        if (url := getattr(config, key)) is not None and (masked := mask_url(url)) != url:
            content[key] = masked
            header += f"# The {key}'s password was left out: give the URL with {flags}.\n"
    return header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def mask_secrets(text: str) -> str:
    """The same text without the passwords of the URLs in it."""
    return re.sub(r"\S*://\S+", lambda found: mask_url(found[0]), text)


def mask_url(url: str) -> str:
    """The same URL without its password, whatever characters that has."""
    url = re.sub(r"(?i)([?&][^=&]*(?:passw|pwd|token|secret)[^=&]*=)[^&]*", rf"\g<1>{MASK}", url)
    return re.sub(r"(://[^:/@]*:).*(?=@)", rf"\g<1>{MASK}", url, flags=re.DOTALL)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where something known is near, else what is known."""
    known = list(known)
    return near(given, known) or f" (known: {', '.join(known)})"


def _fields(read: Mapping[str, Any]) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(EvolveConfig))
    return {name: read[key_of(name)] for name in names if key_of(name) in read}


_TYPES = {key_of(name): kind for name, kind in get_type_hints(EvolveConfig).items()}


def _check(config: EvolveConfig) -> None:
    for name, least in (("generations", 1), ("epochs", 1), ("imgsz", 1), ("batch", 1), ("max_failures", 1)):
        if getattr(config, name) < least:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is {getattr(config, name)}; it has to be at least {least}")
    if config.jobs is not None and config.jobs < 0:
        raise ConfigError(f"--jobs is {config.jobs}; it cannot be negative (0: only workers that join)")
    if config.command and config.trainer not in PROGRAMS:
        raise ConfigError(f"unexpected argument {config.command[0]!r}: a program goes with --trainer command")
    if config.backend not in BACKENDS:
        raise ConfigError(f"unknown backend {config.backend!r}{did_you_mean(config.backend, BACKENDS)}")
    if config.address is not None and config.backend == "loky":
        raise ConfigError("--address is of a cluster: give --backend dask or ray with it")
    if config.storage == "memory:" and (config.jobs or config.per_device or config.backend != "loky"):
        raise ConfigError("workers share nothing through --storage memory:; give a file or a database")
    if config.trial_timeout is not None and config.trial_timeout < 1:
        raise ConfigError(f"--trial-timeout is {config.trial_timeout}; it has to be at least 1 second")
    for name in ("base_seeds", "patience", "per_device"):
        if (given := getattr(config, name)) is not None and given < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {given}; it has to be at least 1")
    if config.budget is not None and seconds_of(config.budget) is None:
        raise ConfigError(f"--budget is {config.budget}; it has to be a time with its unit: 8h, 90m, 1h30m or 45s")
    if config.target is not None and not math.isfinite(config.target):
        raise ConfigError(f"--target is {config.target}; it has to be a fitness, such as 0.5")
    if config.race is not None and config.race < 0:
        raise ConfigError(f"--race is {config.race}; it cannot be negative (0: no race)")
    for name in ("threads", "seed", "retries", "keep", "freeze_epochs", "freeze_batch", "nominal_batch"):
        if getattr(config, name) < 0:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is {getattr(config, name)}; it cannot be negative")
    if not re.fullmatch(r"[\w][\w.+ -]*", config.study):
        raise ConfigError(
            f"'{config.study}' cannot name a study: it names a folder, so give letters, digits, '.', '-' or '_'"
        )


def _as_text(key: str, value: object) -> object:
    """`device: 0`, `freeze_layers: 10` and `map50: 11` are numbers to YAML, and names to us; so is a budget without
    its unit."""
    numbered = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if numbered and key in ("device", "freeze_layers", "budget", *COLUMNS) else value


def _typed(value: object, kind: Any, what: str) -> Any:
    """`value` as the type of its field; whole floats pass as int and lists as tuples, nothing else is bent."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if get_origin(kind) is not None and isinstance(value, dict):
        return {str(key): _typed_value(item, f"{_printable(key)} of {what}") for key, item in value.items()}
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(kind) is None and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise ConfigError(f"{what} is {_described(value)}; expected {_name_of(kind)}")


def _typed_value(value: object, what: str) -> Value:
    if isinstance(value, Value):
        return value
    raise ConfigError(f"{what} is {_described(value)}; expected a number, a text or true/false")


def _name_of(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list of names"}
    return names.get(get_origin(kind) or kind, "a mapping of names to values")


def _printable(key: object) -> str:
    return key if isinstance(key, str) and key.isprintable() and len(key) < 100 else shown(key)


def _described(value: object) -> str:
    return "nothing" if value is None else shown(value)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _absolute(name: str) -> str:
    """The absolute path of what names a file; a bare name ('digits') and a path with nothing there stay as they are."""
    if Path(name).name == name and not Path(name).suffix:
        return name
    return str(Path(name).absolute()) if os.path.exists(name) else name


def _name_after(data: str) -> str:
    """'digits' -> 'digits', 'sets/blood/data.yaml' -> 'blood', 'sets/blood.yaml' -> 'blood'."""
    path = Path(data)
    name = path.parent.name if path.stem == "data" and path.parent.name else path.stem
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "study"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
