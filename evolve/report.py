"""`evolve report`: a study as one page that needs nothing else, report.html, and its pictures as single files."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optuna import Study

from evolve.advising import advise, insight_into
from evolve.config import ConfigError, EvolveConfig, mask_secrets
from evolve.describing import run_command
from evolve.formats import FORMATS
from evolve.hyps import option_hyps
from evolve.lookup import find_with_folder
from evolve.page import Page, write
from evolve.paths import RunPaths, found_as
from evolve.records import provenance, train_command
from evolve.status import asked_of
from evolve.tables import name_dead
from search_spaces import Space, dump_hyp
from studies import storage_errors, trials_of, write_atomically
from studies.pictures import pictures_of
from studies.status import failures_of
from studies.study import CONFIG, CREATED_WITH, IDENTITY
from studies.view import View, view_of


def report(
    name: str | None, runs: Path, storage: str | None = None, *, output: Path | None = None, png: bool = False
) -> list[Path]:
    """Write the report of a study, and with `png` its pictures beside it; returns what was written, the report first.

    Without `output` it lies in the study's run folder, or here if there is none. Raises ConfigError, StudyError.
    """
    with storage_errors(storage or ""):
        study, paths = find_with_folder(name, runs, storage)
        view = view_into(study)
        page = page_of(study, view, paths, storage)
    target = output or (paths.report if paths else Path(RunPaths(Path()).report.name))
    write_atomically(target, write(page))
    return [target, *(write_pictures(view, target.parent / f"{target.stem}-pictures") if png else [])]


def view_into(study: Study) -> View:
    """All that there is to see of an evolve study, with no password in any text that came from elsewhere."""
    space = Space.from_dict(study.user_attrs[IDENTITY]["space"])
    view = view_of(study, insight_into(study, space))
    return replace(
        view,
        trials=tuple(replace(trial, why=mask_secrets(trial.why)) if trial.why else trial for trial in view.trials),
        heats=tuple(replace(heat, why=mask_secrets(heat.why)) if heat.why else heat for heat in view.heats),
    )


def page_of(study: Study, view: View, paths: RunPaths | None, storage: str | None = None) -> Page:
    """What the page tells: the view, and what only the study's configuration knows.

    Its commands find the study in its run folder, or, if there is none here, in its storage; the hyp file is then the
    one that the page itself holds.
    """
    asked = asked_of(study)
    identity = study.user_attrs[IDENTITY]
    name = study.study_name
    hyp_file = paths.best_hyp if paths else Path("hyp.yaml")
    elsewhere = ["--storage", mask_secrets(storage)] if storage else []
    found = [found_as(name, paths.root)] if paths else [name, *elsewhere]
    failures = [replace(one, reason=mask_secrets(one.reason)) for one in failures_of(trials_of(study))]
    return Page(
        view=view,
        pictures=pictures_of(view),
        failures=tuple(failures),
        advice=tuple(advise(name, paths.config if paths else None, view.insight)),
        commands=commands(view, asked, hyp_file, found),
        hyp=dump_hyp(view.delivered) if view.delivered else "",
        facts=facts(view, asked, identity, study.user_attrs.get(CREATED_WITH, "not known"), hyp_file),
        config=mask_secrets(study.user_attrs.get(CONFIG, "")),
    )


def commands(view: View, asked: EvolveConfig | None, hyp_file: Path, found: Sequence[str]) -> dict[str, str]:
    """What to type to go on with what was found, by what it does; `found` is what finds the study."""
    if view.delivered is None:
        return {}
    told = {}
    if asked is not None:
        epochs = view.decision.epochs if view.decision else asked.epochs
        options = option_hyps(view.space, asked.trainer)
        told["train with it"] = shlex.join(train_command(replace(asked, epochs=epochs), hyp_file, options))
    for known in FORMATS.values():
        if known.dialect is not None:
            export = ["evolve", "export", *found, "--format", known.name, "-o", known.file]
            told.setdefault(f"for {known.title.partition(' (')[0]}", shlex.join(export))
    return told


def facts(
    view: View, asked: EvolveConfig | None, identity: Mapping[str, object], version: str, hyp_file: Path
) -> dict[str, str]:
    """Where all this comes from."""
    pinned = view.insight.dead
    if asked is not None:
        found = provenance(asked, hyp_file, option_hyps(view.space, asked.trainer), pinned)
        found.pop("command")
        found.pop("version")
    else:
        known = ("data", "model", "epochs", "imgsz", "batch", "optimizer", "schedule", "trainer", "seed")
        found = {name: str(identity[name]) for name in known if name in identity}
        found |= {"not evolved": name_dead(pinned)} if pinned else {}
    taken = sum(trial.state == "known" for trial in view.trials)
    return {
        "study": view.study,
        **found,
        "data's digest": str(identity.get("data", "not known")),
        **({"started with": mask_secrets(shlex.join(run_command(asked)))} if asked else {}),
        "space": f"{view.space.name}, {len(view.space.evolving)} hyps evolve",
        **({"taken over": f"{taken} trials of earlier studies"} if taken else {}),
        "made by": f"evolve {version}",
    }


def write_pictures(view: View, folder: Path) -> list[Path]:
    """Each picture as a .png. Raises ConfigError where nothing is installed that can draw them."""
    try:
        importlib.import_module("kaleido")  # what plotly draws with, by a browser
        from plotly.io import write_images
    except ImportError:
        raise ConfigError("--png needs a package that is not installed: pip install 'evolve-hyp[pictures]'") from None
    figures = pictures_of(view)
    files = {name: folder / f"{name}.png" for name in figures}
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures.values():
        figure.update_layout(paper_bgcolor="#ffffff", width=1200)
    try:
        write_images(
            fig=list(figures.values()),
            file=list(files.values()),
            width=1200,
            height=[figure.layout.height for figure in figures.values()],
            scale=1.5,
        )
    except Exception as error:  # of a browser that is missing, or that does not start
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--png needs a Chrome or Chromium that starts here: {reason}") from error
    return list(files.values())
