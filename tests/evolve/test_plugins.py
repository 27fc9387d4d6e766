"""What can be named, and what is said of a name that cannot."""

import importlib

import pytest

from evolve.config import ConfigError
from evolve.plugins import PLUGINS, resolve


def test_one_of_your_own_is_given_as_module_and_attribute():
    assert resolve("trainer", "mylab.toy:ToyTrainer") == "mylab.toy:ToyTrainer"


@pytest.mark.parametrize("name", ["", ":", "toy:", ":Toy", "my lab:Toy", "toy.py:Toy()", "a:b:c"])
def test_what_is_neither_a_name_nor_module_and_attribute_is_told(name):
    with pytest.raises(ConfigError, match="unknown trainer"):
        resolve("trainer", name)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in PLUGINS.items() for name in table])
def test_every_name_in_the_table_leads_to_something(kind, name):
    module, _, attribute = resolve(kind, name).partition(":")
    assert hasattr(importlib.import_module(module), attribute)
