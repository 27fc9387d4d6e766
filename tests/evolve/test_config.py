"""Defaults, then the file, then the flags; what is wrong is told; what was resolved can be read again."""

import dataclasses
import re

import pytest
from click.testing import CliRunner

from evolve.cli import cli
from evolve.config import (
    ConfigError,
    EvolveConfig,
    complete,
    dump_config,
    key_of,
    mask_secrets,
    read_config,
    resolve_config,
)


def write(folder, text):
    path = folder / "evolve.yaml"
    path.write_text(text)
    return path


def test_a_flag_beats_the_file_and_the_file_beats_the_default(tmp_path):
    path = write(tmp_path, "epochs: 7\nbatch: 4\n")
    config = resolve_config({"epochs": 9, "batch": None}, path)
    assert (config.epochs, config.batch, config.generations) == (9, 4, EvolveConfig().generations)


def test_what_was_resolved_reads_back_as_the_same_configuration(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("lr0: 0.1\n")
    flags = {"space": str(space), "freeze": ("lr0", "box"), "set": {"momentum": 0.9, "name": "a: b"}, "seed": 3}
    config = resolve_config({**flags, "runs": str(tmp_path)})
    assert resolve_config({}, write(tmp_path, dump_config(config))) == config


def test_a_path_means_the_same_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "blood").mkdir()
    write(tmp_path / "blood", "names: [cell]").rename(tmp_path / "blood" / "data.yaml")
    monkeypatch.chdir(tmp_path)
    config = resolve_config({"data": "blood/data.yaml"})
    assert config.data == str(tmp_path / "blood" / "data.yaml")
    assert config.runs == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("data", "study"),
    [("digits", "digits"), ("sets/blood/data.yaml", "blood"), ("sets/my cells.yaml", "my-cells"), ("...", "study")],
)
def test_a_study_without_a_name_takes_that_of_its_data(data, study):
    assert resolve_config({"data": data}).study == study


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch: 3", "unknown key 'epoch' in {path} (did you mean 'epochs'?)"),
        ("epochs: many", "epochs in {path} is 'many'; expected a whole number"),
        ("epochs: 2.5", "epochs in {path} is 2.5; expected a whole number"),
        ("epochs: true", "epochs in {path} is True; expected a whole number"),
        ("epochs:", "epochs in {path} is nothing; expected a whole number"),
        ("data: 7", "data in {path} is 7; expected a text"),
        ("rect: 1", "rect in {path} is 1; expected true or false"),
        ("rect: 'yes'", "rect in {path} is 'yes'; expected true or false"),
        ("freeze_epochs: false", "freeze_epochs in {path} is False; expected a whole number"),
        ("device: true", "device in {path} is True; expected a text"),
        ("freeze: lr0", "freeze in {path} is 'lr0'; expected a list of names"),
        ("set: [lr0]", "set in {path} is ['lr0']; expected a mapping of names to values"),
        ("set: {lr0: [1]}", "lr0 of set in {path} is [1]; expected a number, a text or true/false"),
        ("- epochs", "{path} is not a configuration"),
        ("epochs: [", "{path} is not YAML"),
        ("epochs: 2024-13-45", "{path} is not YAML: found '2024-13-45', which is no timestamp"),
        ("epochs: !!bool x", "{path} is not YAML: found 'x', which is no bool"),
        ("epochs: !!timestamp x", "{path} is not YAML: found 'x', which is no timestamp"),
        ("epochs: " + "[" * 10_000, "{path} is not YAML: it is nested too deeply"),
        ("epochs: " + "9" * 5000, "{path} is not YAML: found a number of 5000 characters"),
        ("epochs: " + "[" * 99 + "]" * 99, "epochs in {path} is [[[...]]]; expected a whole number"),
        ("data: 0x" + "f" * 900, "data in {path} is a number of 3600 bits; expected a text"),
        ("set: &a {lr0: *a}", "{path} is not YAML: found aliases that lead into themselves"),
        (
            "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 5 if i else 'x'}]\n" for i in range(10)),
            "{path} is not YAML: found aliases that unfold into more than 1000000 values",
        ),
        ('set: {"a\\nb": [1]}', "'a\\nb' of set in {path} is [1]; expected a number"),
        ("k" * 900 + ": 1", "unknown key 'kkk"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_sentence(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert sentence.format(path=path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"study: caf\xe9")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        read_config(tmp_path / "latin.yaml")


def test_a_device_and_frozen_layers_may_be_numbers_and_a_switch_is_one(tmp_path):
    read = read_config(write(tmp_path, "device: 0\nfreeze_layers: 10\nrect: yes\nmulti_scale: false\n"))
    assert read == {"device": "0", "freeze_layers": "10", "rect": True, "multi_scale": False}
    config = resolve_config(read)
    assert read_config(write(tmp_path, dump_config(config))).items() >= read.items()


def test_what_every_training_has_in_common_reaches_the_trainer_from_flags_and_file(tmp_path):
    (tmp_path / "yolo.weights").write_bytes(b"")
    file = write(tmp_path, "rect: true\nfreeze_epochs: 3\namp: 'off'\ncache: none\n")
    given = {"weights": f"{tmp_path}/yolo.weights", "freeze_layers": "backbone", "freeze_epochs": 2, "device": "0,1"}
    options = resolve_config({**given, "sync_bn": True, "rect": None}, file).train_options()
    expected = {**given, "sync_bn": True, "rect": True, "amp": "off", "cache": "none", "notest": False}
    assert {name: getattr(options, name) for name in expected} == expected


def test_weights_that_are_a_file_mean_the_same_from_any_folder_and_others_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.pt").touch()
    assert resolve_config({"weights": "last.pt"}).weights == str(tmp_path / "last.pt")
    for name in ("", "https://host.example/yolo.weights", "yolo.weights"):
        assert resolve_config({"weights": name}).weights == name


def test_an_empty_file_and_whole_floats_are_taken(tmp_path):
    assert read_config(write(tmp_path, "")) == {}
    assert read_config(write(tmp_path, "epochs: 5.0")) == {"epochs": 5}
    assert repr(read_config(write(tmp_path, "target: 1"))) == "{'target': 1.0}"


def test_a_budget_without_its_unit_is_refused_in_a_file_as_on_the_command_line(tmp_path):
    with pytest.raises(ConfigError, match="--budget is 8; it has to be a time with its unit"):
        resolve_config({}, write(tmp_path, "budget: 8"))
    assert resolve_config({}, write(tmp_path, "budget: 8h")).budget == "8h"


def test_a_fitness_to_stop_at_is_a_number(tmp_path):
    with pytest.raises(ConfigError, match=r"target in .* is 'high'; expected a number"):
        read_config(write(tmp_path, "target: high"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"generations": 0}, "--generations is 0; it has to be at least 1"),
        ({"generations": -5}, "--generations is -5; it has to be at least 1"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"max_failures": 0}, "--max-failures is 0"),
        ({"trial_timeout": 0}, "--trial-timeout is 0; it has to be at least 1 second"),
        ({"seed": -1}, "--seed is -1; it cannot be negative"),
        ({"freeze_epochs": -1}, "--freeze-epochs is -1; it cannot be negative"),
        ({"study": "../other"}, "'../other' cannot name a study"),
        ({"study": ".hidden"}, "'.hidden' cannot name a study"),
    ],
)
def test_a_setting_out_of_its_range_is_told(flags, sentence):
    with pytest.raises(ConfigError) as error:
        resolve_config(flags)
    assert sentence in str(error.value)


SECRET = "postgresql://ann:s3c@ret:x@db.example/evolve"


def test_a_password_is_never_written_down(tmp_path):
    text = dump_config(resolve_config({"storage": SECRET}))
    assert "s3c" not in text
    assert "ret:x" not in text
    assert "storage: postgresql://ann:***@db.example/evolve" in text
    assert "EVOLVE_STORAGE" in text


def test_a_password_in_the_buckets_url_is_not_written_down_either(tmp_path):
    path = write(tmp_path, dump_config(resolve_config({"bucket": "sftp://ann:s3cret@host.example/runs"})))
    assert "s3cret" not in path.read_text()
    with pytest.raises(ConfigError, match="give the URL with --bucket"):
        resolve_config({}, path)
    assert resolve_config({"bucket": "s3://runs"}, path).bucket == "s3://runs"


def test_a_password_in_the_weights_url_is_not_written_down_either(tmp_path):
    url = "https://me:hunter2@host.example/w.pt"
    path = write(tmp_path, dump_config(resolve_config({"weights": url})))
    assert "hunter2" not in path.read_text()
    with pytest.raises(ConfigError, match="lack their password: give the URL with --weights"):
        resolve_config({}, path)
    assert resolve_config({"weights": url}, path).weights == url


def test_a_file_without_its_password_asks_for_the_storage_and_takes_it_from_the_flag(tmp_path):
    path = write(tmp_path, dump_config(resolve_config({"storage": SECRET})))
    with pytest.raises(ConfigError, match="lacks its password"):
        resolve_config({}, path)
    assert resolve_config({"storage": SECRET}, path).storage == SECRET


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
        ("mysql://ann@db/evolve", "mysql://ann@db/evolve"),
        ("cannot reach redis://:pw@db:6379/0 now", "cannot reach redis://:***@db:6379/0 now"),
        (
            "postgresql://db/e?user=ann&password=pw&sslmode=require",
            "postgresql://db/e?user=ann&password=***&sslmode=require",
        ),
    ],
)
def test_masking_touches_passwords_and_nothing_else(text, masked):
    assert mask_secrets(text) == masked


def test_completing_a_configuration_twice_changes_nothing():
    once = complete(EvolveConfig(data="digits"))
    assert once.study == "digits"
    assert complete(once) == once


@pytest.mark.parametrize("resolved", [resolve_config, lambda settings: complete(EvolveConfig(**settings))])
def test_a_data_set_of_ones_own_gets_the_larger_model_and_size_unless_told_otherwise(resolved, tmp_path):
    def chosen(**settings):
        config = resolved(settings)
        assert read_config(write(tmp_path, dump_config(config))).items() >= {"model": config.model}.items()
        options = config.train_options()
        assert (options.model, options.imgsz) == (config.model, config.imgsz)
        return config.model, config.imgsz

    assert chosen() == ("pico", 96)
    assert chosen(data="cells.yaml") == ("nano", 320)
    assert chosen(data="cells.yaml", imgsz=160) == ("nano", 160)
    assert chosen(data="cells.yaml", model="pico") == ("pico", 320)
    assert chosen(imgsz=64) == ("pico", 64)


def test_the_help_shows_the_defaults_for_both_kinds_of_data():
    told = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert "[default: pico; nano with --data of your own]" in told
    assert "[default: 96; 320 with --data of your own]" in told


def test_the_help_of_run_shows_its_options_under_headings_and_none_of_them_twice():
    told = CliRunner().invoke(cli, ["run", "--help"]).output
    parts = [part.split(":\n", 1) for part in told.split("\n\n") if ":\n" in part]
    sections = {heading: re.findall(r"^  (?:-\w, )?--([\w-]+)", part, re.MULTILINE) for heading, part in parts}
    assert sections.pop("Options") == ["config", "quiet", "json", "help"]
    shown = [name for names in sections.values() for name in names]
    assert len(shown) == len(set(shown))
    known = {key_of(field.name).replace("_", "-") for field in dataclasses.fields(EvolveConfig)}
    assert set(shown) == known - {"command"}, "which stands behind --"
