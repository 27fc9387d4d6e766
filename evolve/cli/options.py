"""The options that commands share: each flag of a setting once, with its help and its default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evolve.config import OWN_DATA, ConfigError, EvolveConfig, key_of, mask_url
from search_spaces import Value, read_scalar

DEFAULTS = {**vars(EvolveConfig()), **vars(EvolveConfig().train_options())}
PASSWORD_SHOWN = (
    "the password in --storage is there for everybody on this machine to see (ps); give the URL as EVOLVE_STORAGE, "
    "or leave its password to PGPASSWORD or ~/.pgpass"
)
SERVERS = ("postgresql", "mysql", "mariadb", "redis")  # as their URLs begin
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def setting(name: str, text: str, *aliases: str, **more: Any) -> Decorator:
    """The flag of one field of EvolveConfig: its default is shown, and None tells that it was not given."""
    default = DEFAULTS[name]
    own = f"; {OWN_DATA[name]} with --data of your own" if name in OWN_DATA else ""
    told = "[default" in text or default in (None, "", ()) or default is False or default == {}
    shown = "" if told else f"  [default: {default}{own}]"
    if isinstance(default, bool):
        more = {"is_flag": True, "flag_value": True, "type": bool, **more}
    else:
        kind: dict[str, Any] = {"type": int, "metavar": "N"} if isinstance(default, int) else {"type": str}
        more = {**kind, **more}
    return click.option(f"--{key_of(name).replace('_', '-')}", *aliases, name, default=None, help=text + shown, **more)


def together(heading: str, *options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order under a heading."""

    def decorate(command: Any) -> Any:
        before = len(getattr(command, "__click_params__", ()))  # where click gathers them
        for option in reversed(options):
            command = option(command)
        for param in command.__click_params__[before:]:
            param.heading = heading
        return command

    return decorate


def _names(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _several(_ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...] | None:
    return given or None


def _values(_ctx: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Value] | None:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--set {pair} is not name=value, as in --set lr0=0.02")
    return {name.strip(): read_scalar(text) for name, _, text in (pair.partition("=") for pair in pairs)} or None


def warn_of_password(ctx: click.Context, option: click.Parameter, url: str | None) -> str | None:
    """Warn of a server's password that stands on the command line. Of a URL that is no storage that is told alone."""
    typed = ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if typed and url and url.startswith(SERVERS) and mask_url(url) != url:
        click.echo(f"evolve: warning: {PASSWORD_SHOWN}", err=True)
    return url


AT_LEAST_1 = click.IntRange(min=1)
FROZEN = "Layers that keep their weights, all along or for --freeze-epochs: backbone, or the number of first layers."


def training_options(*freeze_aliases: str) -> Decorator:
    return together(
        "Each training",
        setting("data", "Built-in data set, data.yaml, .data file, COCO .json or folder.", metavar="NAME|PATH"),
        setting("model", "pico, nano, yolov3[-tiny|-spp], yolov4-tiny, or a Darknet cfg.", metavar="NAME|FILE"),
        setting("epochs", "Epochs of a training."),
        setting("imgsz", "Image size in pixels."),
        setting("batch", "Images in a batch."),
        setting("device", "Where to train: cpu, cuda, cuda:1, 0, or several: 0,1.", metavar="NAMES"),
        setting("threads", "CPU threads of a training; 0 takes every core."),
        setting("seed", "Seed of everything random."),
        setting("optimizer", "Optimizer: sgd, adam or adamw.", metavar="NAME"),
        setting("schedule", "Learning rate over the training: trapezoid, cosine or linear.", metavar="NAME"),
        setting("weights", "Weights to start from: .weights, .conv.N or .pt.  [default: none]", metavar="FILE|URL"),
        setting("freeze_layers", FROZEN, *freeze_aliases, metavar="LAYERS"),
        setting("freeze_epochs", "Epochs that train the head only, before all is trained."),
        setting("freeze_batch", "Images in a batch of these.  [default: as --batch]"),
        setting("nominal_batch", "Gather gradients over so many images.  [default: update after every batch]"),
        setting("single_cls", "Take all classes for one."),
        setting("rect", "Train on batches of one shape instead of squares."),
        setting("multi_scale", "Train in sizes of 0.5 to 1.5 times --imgsz."),
        setting("image_weights", "Show images of badly detected classes more often."),
        setting("cache", "Decoded images: disk, or none to decode them whenever they are needed.", metavar="HOW"),
        setting("amp", "Precision of convolutions: auto, bf16, fp16 or off.", metavar="HOW"),
        setting("sync_bn", "Share batch statistics between the devices."),
        setting("notest", "Score the last epoch only."),
        setting(
            "trainer",
            "detection, ultralytics, command, yolov5, ..., or module:attr of your own.",
            metavar="NAME",
        ),
        setting(
            "trial_timeout", "Fail what brings no epoch for so long.  [default: never]", metavar="SECONDS", type=int
        ),
    )


program_options = together(
    "A program that trains (docs/trainers.md)",
    setting("repo", "Check-out of --trainer yolov5, yolov7 or yolov3.", metavar="FOLDER"),
    setting("metrics", "Results file of COMMAND, in {workdir}.  [default: it prints JSON lines]", metavar="FILE"),
    setting("epoch_column", "Its column with the epoch, by name, or by number from 1 on.", metavar="COLUMN"),
    setting("precision", "Its column with the precision.", metavar="COLUMN"),
    setting("recall", "Its column with the recall.", metavar="COLUMN"),
    setting("map50", "Its column with the mAP50.", metavar="COLUMN"),
    setting("map50_95", "Its column with the mAP50-95.", metavar="COLUMN"),
)
command_argument = click.argument("command", nargs=-1, type=click.UNPROCESSED, callback=_several)
fitness_option = setting("fitness", "The one number: weights of precision, recall, map50, map50_95.", metavar="WEIGHTS")
space_options = together(
    "What may vary, and from where it starts",
    setting("space", "What may vary: a built-in space (see `evolve spaces`) or a file.", metavar="NAME|FILE"),
    setting(
        "hyp",
        "Hyp file, of any format, of the base that evolution starts from.  [default: the space's values]",
        metavar="FILE",
    ),
    setting(
        "from_",
        "Take over what is known: an earlier study, a hyp.yaml, evolve.txt, evolve.csv or tune_results.ndjson; "
        "may be repeated.",
        metavar="STUDY|FILE",
        multiple=True,
        callback=_several,
    ),
    setting("freeze", "Hyps that keep their default: names with commas between.", metavar="NAMES", callback=_names),
    setting("only", "The only hyps that may vary: names with commas between.", metavar="NAMES", callback=_names),
    setting("set", "Give a hyp a fixed value; may be repeated.", metavar="NAME=VALUE", multiple=True, callback=_values),
)
search_options = together(
    "How to search",
    setting("sampler", "What proposes hyps: genetic, yolo, tpe, cmaes, gp, random, ...", metavar="NAME"),
    setting("pruner", "What stops hopeless trials: evolve, asha, median, none, ...", metavar="NAME"),
    fitness_option,
    setting("objective", "fitness, or several goals with commas between: map50_95,latency_ms.", metavar="GOALS"),
    setting(
        "base_seeds",
        "Seeds to train the base with, before all else.  [default: 3, fewer below 30 generations]",
        metavar="N",
        type=int,
    ),
    setting(
        "race",
        "Hyps that race against the base under fresh seeds at the end; 0: no race."
        "  [default: what a tenth of the generations pays for, at most 10]",
        metavar="N",
        type=int,
    ),
)
stop_options = together(
    "When to end, whichever comes first",
    setting("generations", "Trials in total; a study that is resumed counts on."),
    setting(
        "budget",
        "Time for the search and its race: 8h, 90m, 1h30m.  [default: no end]",
        metavar="TIME",
    ),
    setting("patience", "Generations without gain beyond the noise floor.  [default: no end]", metavar="N", type=int),
    setting("target", "Fitness that is enough.  [default: no end]", metavar="FITNESS", type=float),
    setting("max_failures", "Failed trials in a row."),
)
worker_options = together(
    "Many at once",
    setting(
        "jobs",
        "Workers, one trial at a time each; 0: only those that join by `evolve worker`.  [default: one for each "
        "device with --per-device, else this process]",
        metavar="N",
        type=int,
    ),
    setting("per_device", "Workers on each of the devices of --device.", metavar="K", type=int),
    setting("backend", "Who starts the workers: loky (this machine), dask or ray.", metavar="NAME"),
    setting("address", "Of a Dask or Ray cluster.  [default: one of this machine's own]", metavar="ADDRESS"),
    setting("retries", "How often a hyp is queued again whose worker died."),
    setting("checkpoint", "Save every epoch: a trial whose worker died goes on from its last one."),
)
log_to_option = setting(
    "log_to",
    "Keep each trial as a run there: tensorboard, mlflow, or mlflow:URI; may be repeated.",
    metavar="PLACE",
    multiple=True,
    callback=_several,
)
bucket_option = setting("bucket", "Copy results to this folder as they come: s3://..., gs://..., ...", metavar="URL")
keep_option = setting("keep", "Best trials that keep logs and weights; of others only metrics stay.")
study_options = together(
    "The study",
    setting("study", "Name of the study and of its run folder.  [default: the name of the data]", metavar="NAME"),
    setting("runs", "Folder of the run folders.", metavar="FOLDER"),
    setting(
        "storage",
        "URL of an Optuna storage.  [default: SQLite in the run folder]",
        metavar="URL",
        envvar="EVOLVE_STORAGE",
        callback=warn_of_password,
    ),
    keep_option,
    bucket_option,
    log_to_option,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
trained_options = together(
    "What is trained, and how it is scored",
    click.option("--hyp", metavar="FILE", help="Hyp file, of any format.  [default: the trainer's own values]"),
    click.option("--seeds", type=AT_LEAST_1, metavar="N", help="Train so often, from --seed on.  [default: 1]"),
    fitness_option,
    click.option("--split", metavar="NAME", help="Scored after every epoch: train, val or test.  [default: val]"),
)
run_folder_options = together(
    "The run folder",
    click.option("--name", metavar="NAME", help="Its name, numbered where there is one already.  [default: exp]"),
    click.option("--runs", metavar="FOLDER", help="Folder of the run folders.  [default: runs/train]"),
    click.option("--out", metavar="FOLDER", help="The run folder itself, instead of --runs and --name."),
    click.option("--resume", metavar="FOLDER", help="Go on in this run folder after its last whole epoch."),
    click.option("--nosave", is_flag=True, default=None, help="Leave results, but no weights."),
    click.option("--noplots", is_flag=True, default=None, help="Draw no pictures."),
    click.option("--tensorboard", is_flag=True, default=None, help="Write TensorBoard's event file too."),
    bucket_option,
)
found_study = together(
    "Options",
    click.option(
        "--runs", default=DEFAULTS["runs"], show_default=True, metavar="FOLDER", help="Folder of the run folders."
    ),
    click.option(
        "--storage",
        envvar="EVOLVE_STORAGE",
        callback=warn_of_password,
        metavar="URL",
        help="URL of its storage.  [default: as in its evolve.yaml]",
    ),
)
strict_option = click.option("--strict", is_flag=True, help="Refuse to leave out what has no equivalent.")
output_option = click.option(
    *("-o", "--output"), type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
