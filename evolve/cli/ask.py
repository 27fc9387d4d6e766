"""The commands that tell of studies; they only read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evolve.cli.door import quieten_libraries, under
from evolve.cli.options import found_study, json_option, output_option, warn_of_password
from evolve.standing import NoResult, nothing_yet
from search_spaces import dump_hyp

command = under("Look and ask")
trial_argument = click.argument("trial")


@command("list")
@found_study
@json_option
def list_(runs: str, storage: str | None, as_json: bool) -> None:
    """List the studies of a folder or a storage: how each stands.

    With --storage it needs no run folder.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.listing import list_studies, tell_studies
    from evolve.plain import document

    listed = list_studies(Path(runs), storage)
    if as_json:
        click.echo(document(listed))
    else:
        tell_studies(Console(), listed, Path(runs))


@command()
@click.argument("study", required=False)
@found_study
@click.option("--study", "named", metavar="NAME", help="Name of the study in --storage; the same as STUDY.")
@json_option
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


@command()
@click.argument("study", required=False, metavar="[STUDY|STORAGE]", callback=warn_of_password)
@found_study
@click.option("--host", default="127.0.0.1", show_default=True, metavar="NAME", help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, metavar="N", help="Port to listen on; 0: any that is free.")
@click.option("--allow-write", is_flag=True, help="Let whoever reaches it change and delete studies.")
@click.option("--open", "browse", is_flag=True, help="Open it in a browser.")
def dashboard(study: str | None, runs: str, **asked: Any) -> None:
    """Serve Optuna's dashboard of a study, to look at.

    With our pictures, the best hyp's file and a note beside it. STUDY is one of --runs, by default the one that
    improved last, or, with --storage, one in there; STORAGE is a URL, of which all studies are shown. It only reads,
    while others work, and nobody but this machine reaches it. Ctrl-C ends it.
    """
    quieten_libraries()
    from evolve.dashboard import dashboard as serve

    def warn(text: str) -> None:
        click.echo(f"evolve: warning: {text}", err=True)

    serve(study, Path(runs), say=click.echo, warn=warn, **asked)


@command()
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
        raise nothing_yet(found.paths.root.name)
    if as_yaml:
        click.echo(dump_hyp(found.decision.hyp if found.decision else found.best.hyp), nl=False)
    elif found.best.goals:
        say_front(Console(), found.front, found.paths.best_hyp)
    elif found.decision:
        say_decided(Console(), found.decision, found.base, found.paths.best_hyp)
    else:
        say_best(Console(), found.best, found.base, found.paths.best_hyp)


@command()
@click.argument("study", required=False)
@found_study
@output_option
@click.option("--png", is_flag=True, help="Leave each picture as a .png too, in a folder beside it.")
def report(study: str | None, runs: str, storage: str | None, **asked: Any) -> None:
    """Show a study as one page: the verdict, pictures, tables.

    The page is one file that needs no network: report.html in the run folder, or here where there is none. Without
    STUDY it is the study that improved last. With --storage it needs no run folder. `evolve run` renews the page from
    time to time.
    """
    quieten_libraries()
    from evolve.report import report as write_report

    for path in write_report(study, Path(runs), storage, **asked):
        click.echo(path)


@command()
@click.argument("study", required=False)
@found_study
@json_option
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
        raise nothing_yet(found.paths.root.name)
    known = insight_into(found.study, found.space)
    if as_yaml:
        click.echo(dump_space(widened(found.space, known)), nl=False)
    elif as_json:
        click.echo(insight_as_json(found.study.study_name, known))
    else:
        tell_insight(Console(), found.study.study_name, found.paths.config, known)


@command()
@trial_argument
@click.argument("study", required=False)
@found_study
@json_option
def show(trial: str, study: str | None, runs: str, storage: str | None, as_json: bool) -> None:
    """Show a trial: its hyp, what changed, its metrics, its log.

    TRIAL is its number, or `best`. Without STUDY it is of the study that improved last.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.plain import document
    from evolve.showing import look_at_trial, tell_trial

    shown = look_at_trial(trial, study, Path(runs), storage)
    if as_json:
        click.echo(document(shown))
    else:
        tell_trial(Console(), shown)


@command()
@click.argument("first")
@click.argument("second")
@found_study
@json_option
def compare(first: str, second: str, runs: str, storage: str | None, as_json: bool) -> None:
    """Compare two studies: what they found, at what cost, and how.

    FIRST and SECOND are studies. It tells whether they can be told apart: the difference of their bests and its noise.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.comparing import compare as compare_studies
    from evolve.comparing import tell_comparison
    from evolve.plain import document

    found = compare_studies((first, second), Path(runs), storage)
    if as_json:
        click.echo(document(found))
    else:
        tell_comparison(Console(), found)


@command()
@trial_argument
@click.argument("study", required=False)
@found_study
@click.option("--device", metavar="NAME", help="Where to train: cpu, cuda, ...  [default: as in the study]")
@json_option
def replay(trial: str, study: str | None, runs: str, as_json: bool, **asked: Any) -> None:
    """Train a trial again as it was, and tell whether it comes out equal.

    With the same hyp, seed and options, for as many epochs. TRIAL is its number, or `best`; without STUDY it is of the
    study that improved last. Exit code 1 if anything differs.
    """
    quieten_libraries()
    from evolve.plain import document
    from evolve.repeating import replay_trial

    found = replay_trial(trial, study, Path(runs), tell=lambda line: click.echo(line, err=as_json), **asked)
    if as_json:
        click.echo(document(found))
    if not found.equal:
        raise NoResult(found.sentence())
    click.echo(found.sentence(), err=as_json)
