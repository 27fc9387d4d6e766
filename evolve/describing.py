"""A study in a few lines of Markdown: what it is, what came of it, how it was started."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields, replace

from optuna import Study

import evolve
from evolve.config import EvolveConfig, complete, key_of, mask_secrets, mask_url, usual_of
from evolve.paths import from_here
from evolve.status import asked_of, look_at, say_best, say_progress
from search_spaces import Space
from studies.status import Status
from studies.study import CREATED_WITH, IDENTITY

SECRET = ("storage", "bucket")  # may hold passwords, which come from the environment
REPEATED = ("--from", "--log-to")  # given once for each; of others a comma parts them


def describe(study: Study) -> str:
    """The study as it is now, with no password in it."""
    asked = asked_of(study)
    return mask_secrets("\n\n".join(_paragraphs(study, look_at(study), asked)) + "\n")


def run_command(config: EvolveConfig) -> list[str]:
    """The command that asks for this: every setting that is not as usual. Of what is secret there is nothing.

    Passwords in other URLs are masked.
    """
    of_trainer = EvolveConfig(**usual_of(config.trainer))
    usual = complete(replace(of_trainer, trainer=config.trainer, data=config.data, runs="runs"))
    before = replace(usual, trainer=of_trainer.trainer, data=of_trainer.data)
    command = ["evolve", "run"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in ("command", *SECRET) and value != getattr(before, field.name):
            command += _flags(f"--{key_of(field.name).replace('_', '-')}", value)
    return [*command, "--", *(from_here(mask_url(one)) for one in config.command)] if config.command else command


def _flags(flag: str, value: object) -> Iterator[str]:
    match value:
        case bool():
            yield flag
        case dict():
            for name, one in value.items():
                yield from (flag, f"{name}={one}")
        case tuple() if flag in REPEATED:
            for one in value:
                yield from (flag, from_here(mask_url(one)))
        case tuple():
            yield from (flag, ",".join(value))
        case _:
            yield from (flag, from_here(mask_url(str(value))))


def _paragraphs(study: Study, status: Status, asked: EvolveConfig | None) -> Iterator[str]:
    identity = study.user_attrs[IDENTITY]
    evolving = len(Space.from_dict(identity["space"]).evolving)
    goal = identity.get("fitness", "fitness") if len(study.directions) == 1 else ", ".join(study.metric_names or ())
    yield f"# {study.study_name}"
    yield (
        f"A search for better hyperparameters by evolve {study.user_attrs.get(CREATED_WITH, evolve.__version__)}: "
        f"{evolving} hyps evolve, the goal is `{goal}`."
    )
    yield f"**{_verdict(status)}**"
    yield f"{say_progress(status)}."
    if asked is not None:
        yield "## How it was started"
        yield f"```\n{shlex.join(run_command(asked))}\n```"
        yield f"Its run folder is `{from_here(asked.runs)}/{asked.study}` on the machine that ran it."


def _verdict(status: Status) -> str:
    """In one sentence, and with a capital letter."""
    best = status.best
    if best is None:
        return "Nothing has completed yet."
    said = best.verdict or say_best(best)
    return f"{said[0].upper()}{said[1:]}."
