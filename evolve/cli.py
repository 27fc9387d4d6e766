"""The command line: every command parses, calls and prints. What it needs is imported when a command runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import evolve
from evolve.budget import seconds_of
from evolve.config import OWN_DATA, ConfigError, EvolveConfig, key_of, mask_secrets, mask_url, resolve_config
from evolve.formats import FORMATS, READABLE
from evolve.standing import NoResult
from search_spaces import SpaceError, Value, available_spaces, dump_hyp, load_space, read_scalar
from trainer import DataError, TrainerError

DEFAULTS = {**vars(EvolveConfig()), **vars(EvolveConfig().train_options())}
PASSWORD_SHOWN = (
    "the password in --storage is there for everybody on this machine to see (ps); give the URL as EVOLVE_STORAGE, "
    "or leave its password to PGPASSWORD or ~/.pgpass"
)
SERVERS = ("postgresql", "mysql", "mariadb", "redis")  # as their URLs begin
NOTHING_COMPLETED, ASKED_WRONGLY, INTERRUPTED = 1, 2, 130

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Sectioned(click.Command):
    """Shows its options under the headings that `together` gave them; those without one stand last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading in sorted(sections, key=lambda heading: heading == "Options"):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])


class Door(click.Group):
    """The one place where errors become one line on stderr and an exit code; all others are bugs and shown."""

    command_class = Sectioned

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            click.echo(f"evolve: error: {mask_secrets(_sentence(error))}", err=True)
            ctx.exit(code)


def _exit_code(error: Exception) -> int | None:
    """2 for what was asked wrongly, 1 for a result that did not come about, None for a bug."""
    if isinstance(error, NoResult):
        return NOTHING_COMPLETED
    if isinstance(error, TrainerError) and not isinstance(error, DataError):
        return NOTHING_COMPLETED
    if isinstance(error, ConfigError | SpaceError | DataError | OSError):
        return ASKED_WRONGLY
    from studies import StudyError

    return ASKED_WRONGLY if isinstance(error, StudyError) else None


def _sentence(error: Exception) -> str:
    """An error on one line; the system's own name the file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines())


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


def _storage(ctx: click.Context, option: click.Parameter, url: str | None) -> str | None:
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
        callback=_storage,
    ),
    keep_option,
    bucket_option,
)
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
        callback=_storage,
        metavar="URL",
        help="URL of its storage.  [default: as in its evolve.yaml]",
    ),
)
strict_option = click.option("--strict", is_flag=True, help="Refuse to leave out what has no equivalent.")
output_option = click.option(
    *("-o", "--output"), type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(evolve.__version__, prog_name="evolve", message="%(prog)s %(version)s")
def cli() -> None:
    """Evolve the hyperparameters of an object detector's training."""


@cli.command()
@stop_options
@search_options
@space_options
@training_options()
@program_options
@worker_options
@study_options
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings; flags beat them.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@command_argument
def run(config: Path | None, quiet: bool, **flags: Any) -> None:
    """Evolve hyps: start a study, or go on with one of the same name.

    Without any option it evolves 300 generations on the built-in data set `digits`. COMMAND, after --, is the program
    of --trainer command, or more arguments for that of --trainer yolov5 and its like.
    """
    resolved = resolve_config(flags, config)
    quieten_libraries()
    from rich.console import Console

    from evolve.engine import evolve
    from evolve.panel import watcher_for

    evolve(resolved, watcher_for(Console(), quiet=quiet))


@cli.command()
@click.option(
    "--storage",
    envvar="EVOLVE_STORAGE",
    callback=_storage,
    required=True,
    metavar="URL",
    help="URL of the study's storage.",
)
@click.option("--study", required=True, metavar="NAME", help="Name of the study.")
@click.option(
    "--wait", metavar="TIME", help="How long to wait for a study that is not there yet.  [default: not at all]"
)
@click.option("--data", metavar="PATH", help="Where the data lies here.  [default: as where the study is run]")
@click.option("--model", metavar="FILE", help="Where the model's cfg lies here.  [default: as where the study is run]")
@click.option("--weights", metavar="FILE", help="Where the weights lie here.  [default: as where the study is run]")
@click.option("--repo", metavar="FOLDER", help="Where the check-out lies here.  [default: as where the study is run]")
@click.option("--device", metavar="NAME", help="Where to train: cpu, cuda, cuda:1, ...  [default: cpu]")
@click.option("--threads", type=int, metavar="N", help="CPU threads of a training.  [default: as in the study]")
@click.option("--runs", metavar="FOLDER", help="Folder for the logs of its trials.  [default: runs]")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def worker(storage: str, study: str, wait: str | None, quiet: bool, **own: Any) -> None:
    """Join a study as one more worker.

    From any machine that reaches its storage and has its data. It trains one trial after the other until nothing is
    left to do; it may come and go at any time.
    """
    wait_s = 0.0 if wait is None else seconds_of(wait)
    if wait_s is None:
        raise ConfigError(f"--wait is {wait}; it has to be a time with its unit: 10m, 90s or 1h")
    quieten_libraries()
    from rich.console import Console

    from evolve.joining import join_study
    from evolve.panel import watcher_for

    join_study(storage, study, watcher_for(Console(), quiet=quiet), wait_s=wait_s, **own)


@cli.command()
@click.argument("study", required=False)
@found_study
@click.option("--study", "named", metavar="NAME", help="Name of the study in --storage; the same as STUDY.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def status(study: str | None, runs: str, storage: str | None, named: str | None, as_json: bool) -> None:
    """Tell who works on a study, how fast, and what is left.

    With the reasons of failures and the best so far. It only reads, while others work. Without STUDY it is the study
    that improved last. With --storage it needs no run folder, so that it works from any machine that reaches the
    storage. Workers are known by the trials that they are at: who waits for one is not seen.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.lookup import find_stored
    from evolve.status import status_as_json, tell_status
    from studies import storage_errors

    with storage_errors(storage or ""):
        found = find_stored(study or named, Path(runs), storage)
        if as_json:
            click.echo(status_as_json(found))
        else:
            tell_status(Console(), found)


@cli.command()
@click.argument("study", required=False)
@found_study
@click.option("--yaml", "as_yaml", is_flag=True, help="Print nothing but the hyp file.")
def best(study: str | None, runs: str, storage: str | None, as_yaml: bool) -> None:
    """Show the best hyp of a study, or the front of several goals.

    Without STUDY it is the study that improved last.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.lookup import find_study
    from evolve.panel import say_best, say_decided, say_front

    found = find_study(study, Path(runs), storage)
    if found.best is None:
        raise NoResult(f"no trial of {found.paths.root.name} has completed yet")
    if as_yaml:
        click.echo(dump_hyp(found.decision.hyp if found.decision else found.best.hyp), nl=False)
    elif found.best.goals:
        say_front(Console(), found.front, found.paths.best_hyp)
    elif found.decision:
        say_decided(Console(), found.decision, found.base, found.paths.best_hyp)
    else:
        say_best(Console(), found.best, found.base, found.paths.best_hyp)


@cli.command()
@click.argument("study", required=False)
@click.option("--format", "wanted", required=True, metavar="NAME", help=f"For whom: {', '.join(FORMATS)}.")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Of this trial.  [default: the best hyp]")
@output_option
@strict_option
@found_study
def export(study: str | None, runs: str, output: Path | None, **asked: Any) -> None:
    """Write a study's best hyp as another trainer takes it.

    With the command that trains with it. Without STUDY it is the study that improved last.
    """
    quieten_libraries()
    from evolve.exporting import export as export_hyp

    made = export_hyp(study, Path(runs), file=output, **asked)
    _put(made.text, output, made.warnings)
    click.echo(f"train with it: {made.command}", err=output is None)


@cli.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "known",
    metavar="NAME",
    help=f"Its format, where its content does not tell: {', '.join(READABLE)}.",
)
@output_option
@strict_option
def import_(file: Path, known: str | None, output: Path | None, strict: bool) -> None:
    """Print another trainer's hyp file as one of ours.

    FILE is one of YOLOv3, YOLOv5, YOLOv7 or Ultralytics, or JSON. Its content tells which.
    """
    from evolve.importing import import_hyp

    made = import_hyp(file, known, file=output, strict=strict)
    click.echo(made.read_as, err=True)
    _put(made.text, output, made.warnings)


def _put(text: str, output: Path | None, warnings: Iterable[str]) -> None:
    """Print a file, or leave it there; what to be warned of goes to stderr."""
    from studies import write_atomically

    for warning in warnings:
        click.echo(f"evolve: warning: {warning}", err=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text)
        click.echo(f"hyp file: {output}")


@cli.command()
@click.argument("study", required=False)
@found_study
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print nothing but the space, with wider bounds where they bind.")
def insight(study: str | None, runs: str, storage: str | None, as_json: bool, as_yaml: bool) -> None:
    """Tell which hyps matter, which bounds bind, and what never moved.

    With the advice that follows. Without STUDY it is the study that improved last.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.advising import insight_as_json, insight_into, tell_insight
    from evolve.lookup import find_study
    from search_spaces import dump_space
    from studies.insight import widened

    found = find_study(study, Path(runs), storage)
    if found.best is None:
        raise NoResult(f"no trial of {found.paths.root.name} has completed yet")
    known = insight_into(found.study, found.space)
    if as_yaml:
        click.echo(dump_space(widened(found.space, known)), nl=False)
    elif as_json:
        click.echo(insight_as_json(found.study.study_name, known))
    else:
        tell_insight(Console(), found.study.study_name, found.paths.config, known)


@cli.command()
@click.argument("study", required=False)
@click.option("--epochs", type=AT_LEAST_1, metavar="N", help="Epochs of a training.  [default: as in the study]")
@click.option(
    "--seeds", type=click.IntRange(min=2), metavar="N", default=5, show_default=True, help="Seeds of the best third."
)
@click.option(
    "--candidates", type=AT_LEAST_1, metavar="N", default=10, show_default=True, help="Hyps that race against the base."
)
@found_study
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def verify(study: str | None, runs: str, quiet: bool, **asked: Any) -> None:
    """Race a study's best hyps against its base, under fresh seeds.

    Without STUDY it is the study that improved last. Every candidate is trained with two seeds, the best third of them
    with --seeds. What is decided stands in the study's hyp file then.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.panel import watcher_for
    from evolve.verifying import verify as race_again

    race_again(study, Path(runs), watcher=watcher_for(Console(), quiet=quiet), **asked)


@cli.command()
@click.argument("study", required=False)
@found_study
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="K",
    help="Best trials that keep logs and weights.  [default: as in the study]",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
def clean(study: str | None, runs: str, **asked: Any) -> None:
    """Remove what a study left on the disk and needs no longer.

    That is what trials left that are not among the best, but for their metrics, lost trials that were done again, races
    of the study as it was before, and folders of trials that the study does not have. Without STUDY it is the study
    that improved last. It is refused while `evolve run` works on the study.
    """
    quieten_libraries()
    from evolve.cleaning import clean as clean_up

    for line in clean_up(study, Path(runs), **asked):
        click.echo(line)


@cli.command()
@click.argument("name", required=False)
def spaces(name: str | None) -> None:
    """List the search spaces, or show what one holds.

    NAME is a built-in space or a file.
    """
    if name is None:
        click.echo("\n".join(available_spaces()))
        return
    from rich.console import Console

    from evolve.tables import space_table

    Console().print(space_table(load_space(name)))


@cli.command()
@trained_options
@training_options("--freeze")
@program_options
@run_folder_options
@command_argument
def train(**flags: Any) -> None:
    """Train with one hyp, outside of any study.

    Weights and results go to runs/train/exp, the next time to exp2. Of several seeds each has a folder in there.
    COMMAND, after --, is as with `evolve run`.
    """
    from evolve.order import take_order
    from evolve.training import train_and_tell

    for line in train_and_tell(take_order(flags)):
        click.echo(line)


@cli.command()
@click.argument("data")
@click.option("--imgsz", type=AT_LEAST_1, metavar="N", help="Pixels to measure boxes at.  [default: as in training]")
@click.option("--single-cls", is_flag=True, help="Take all classes for one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def check(data: str, imgsz: int | None, single_cls: bool, as_json: bool) -> None:
    """Tell what a data set holds, and what is wrong with it.

    DATA is whatever --data may be. Exit code 2, with one sentence, if it cannot be trained on; 0 if it can.
    """
    from rich.console import Console

    from evolve.checking import report_as_json, tell_report
    from trainer.detection.data.report import inspect_data

    options = resolve_config({"data": data, "imgsz": imgsz}).train_options()
    report = inspect_data(data, options.imgsz, single_cls=single_cls)
    if as_json:
        click.echo(report_as_json(report))
    else:
        tell_report(Console(), report)


@cli.command()
@click.option("--weights", required=True, metavar="FILE", help="best.pt of a training, or other weights of --model.")
@click.option("--data", default="", metavar="NAME|PATH", help="Data set to score on.  [default: that of the training]")
@click.option(
    "--model",
    default="",
    metavar="NAME|FILE",
    help="Model of weights that do not say theirs: a built-in one or a Darknet cfg.",
)
@click.option("--split", default="val", show_default=True, metavar="NAME", help="What is scored: train, val, test.")
@click.option("--imgsz", type=AT_LEAST_1, metavar="N", help="Image size in pixels.  [default: as in the training]")
@click.option("--batch", type=AT_LEAST_1, metavar="N", help="Images in a batch.  [default: what suits the device]")
@click.option(
    "--device",
    default=DEFAULTS["device"],
    show_default=True,
    metavar="NAME",
    help="Where to compute: cpu, cuda, cuda:1, ...",
)
@click.option("--conf", type=float, metavar="SHARE", help="Drop detections of less confidence.  [default: 0.001]")
@click.option(
    "--iou", type=float, metavar="SHARE", help="Drop a detection that overlaps a surer one by more.  [default: 0.6]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--plots", metavar="FOLDER", help="Leave figures and pictures there.")
def val(weights: str, plots: str | None, as_json: bool, **asked: Any) -> None:
    """Score a file of weights: overall, and each class for itself."""
    from rich.console import Console

    from evolve.validating import score_weights, scores_as_json, tell_scores

    report = score_weights(weights, **asked)
    if as_json:
        click.echo(scores_as_json(report))
    else:
        tell_scores(Console(), report)
    if plots:
        from trainer.detection.figures import leave_validation

        page = leave_validation(Path(plots), names=report.names, scored=report.pictures, detections=report.detections)
        click.echo(f"figures: {page}", err=as_json)


@cli.command()
@click.option(
    "--curves", required=True, metavar="SOURCE", help="A study, a run folder, or a .jsonl, .csv or .npz file."
)
@click.option("--pruner", "pruners", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
@click.option("--orders", type=click.IntRange(min=0), default=0, help="Replay in N random orders.", metavar="N")
@click.option("--sampler", metavar="NAME", help="Let it choose the order.  [default: as the study had it]")
@click.option("--minimize", is_flag=True, help="The fitness in a .jsonl or .csv is a loss: lower is better.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Of orders and sampler."
)
@click.option(
    "--runs", default=DEFAULTS["runs"], show_default=True, metavar="FOLDER", help="Folder of the run folders."
)
def simulate(curves: str, pruners: tuple[str, ...], runs: str, minimize: bool, **asked: Any) -> None:
    """Replay recorded trainings through pruners.

    Tells what each would have cost or saved. Only a training that ran to its end can be replayed, so a study without
    pruning tells most. With --sampler each of its proposals stands for the nearest recorded hyp that is left, since it
    was never trained itself: the sampler changes the order and nothing else.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.curves import read_curves
    from evolve.simulating import known_pruners, simulate, tell_simulated

    recording = read_curves(curves, Path(runs), minimize=minimize)
    tell_simulated(Console(), recording, list(simulate(recording, known_pruners(pruners), **asked)))


def quieten_libraries() -> None:
    """Leave the screen to us: of Optuna's lines only warnings, and none about what it calls experimental.

    Our own loggers need no set-up: what they warn of goes to stderr, where Python's last resort writes it.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def main() -> None:
    """What the console script calls."""
    cli(prog_name="evolve")
