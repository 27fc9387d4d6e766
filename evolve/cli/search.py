"""The commands that search, or go on with a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evolve.budget import seconds_of
from evolve.cli.door import quieten_libraries, under
from evolve.cli.options import (
    AT_LEAST_1,
    command_argument,
    found_study,
    program_options,
    search_options,
    space_options,
    stop_options,
    study_options,
    training_options,
    warn_of_password,
    worker_options,
)
from evolve.config import ConfigError, resolve_config

command = under("Search")


@command()
@stop_options
@search_options
@space_options
@training_options()
@program_options
@worker_options
@study_options
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings; flags beat them.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print every event as a JSON object on a line of its own.")
@command_argument
def run(config: Path | None, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Evolve hyps: start a study, or go on with one of the same name.

    Without any option it evolves 300 generations on the built-in data set `digits`. COMMAND, after --, is the program
    of --trainer command, or more arguments for that of --trainer yolov5 and its like.
    """
    resolved = resolve_config(flags, config)
    quieten_libraries()
    from rich.console import Console

    from evolve.engine import evolve
    from evolve.panel import watcher_for

    evolve(resolved, watcher_for(Console(), quiet=quiet, as_json=as_json))


@command()
@click.option(
    "--storage",
    envvar="EVOLVE_STORAGE",
    callback=warn_of_password,
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


@command()
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


@command()
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
