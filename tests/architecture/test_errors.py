"""Every error keeps the promises of its base class, and stands in the catalogue."""

from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys
from collections import Counter

import pytest

import hive_errors
from hive_errors import HiveError
from hive_errors.catalogue import catalogue
from tests.architecture.samples import every_error, sample_error
from tests.architecture.tree import ROOT

ERRORS = every_error()


def test_codes_are_unique() -> None:
    """A code names one error; an error that only inherits its parent's code has none."""
    classes: list[type[HiveError]] = [HiveError, *ERRORS]
    codes = Counter(error.code for error in classes)
    assert {code: times for code, times in codes.items() if times > 1} == {}


def test_every_error_is_behind_the_public_door() -> None:
    """Whatever can be raised can be imported from `hive_errors`."""
    assert sorted({error.__name__ for error in ERRORS} - set(hive_errors.__all__)) == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_explains_itself(error: type[HiveError]) -> None:
    """It has a well-formed code, a docstring of its own, and a sentence and a hint in which every blank is filled.

    The head of a family, which exists to be caught and not to be raised, needs no hint.
    """
    assert re.fullmatch(r"HIVE-[A-Z]+-\d{3}", error.code)
    assert (vars(error).get("__doc__") or "").strip().endswith(".")
    assert not (error.__doc__ or "").startswith(f"{error.__name__}("), "this is the docstring that dataclass writes"
    sample = sample_error(error)
    assert sample.message
    assert sample.advice or error.__subclasses__()
    assert str(sample) == sample.message


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_survives_a_process_border(error: type[HiveError]) -> None:
    """What is unpickled has the same class, facts and words."""
    sample = sample_error(error)
    copy = pickle.loads(pickle.dumps(sample))
    assert type(copy) is error
    assert copy.facts == sample.facts
    assert str(copy) == str(sample)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_the_words_hold_every_fact(error: type[HiveError]) -> None:
    """Each required text or number appears in the message or the advice: a fact that nobody is told is not worth carrying."""
    sample = sample_error(error)
    said = sample.message + sample.advice + error.sentence + error.hint
    required = [field.name for field in dataclasses.fields(error) if field.default is dataclasses.MISSING]
    facts = {name: sample.facts[name] for name in required if isinstance(sample.facts[name], (str, int))}
    assert [name for name, value in facts.items() if f"{{{name}" not in said and str(value) not in said] == []


def test_the_catalogue_is_up_to_date() -> None:
    """docs/errors.md is what `python -m hive_errors` prints; run `.venv/bin/python -m hive_errors > docs/errors.md`."""
    printed = subprocess.run(
        [sys.executable, "-m", "hive_errors"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == catalogue()
    assert (ROOT / "docs" / "errors.md").read_text() == catalogue()


def test_the_catalogue_names_every_error() -> None:
    """No class is missing from the page."""
    page = catalogue()
    assert [error.__name__ for error in ERRORS if f"### {error.code} `{error.__name__}`" not in page] == []
