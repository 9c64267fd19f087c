import json
import math

import pytest

from nacre.audit.finding import MEANING, Finding


def finding(**other):
    fields = {
        "audit": "membership",
        "headline": "Membership advantage",
        "unit": "signed",
        "claim": "none",
        "measure": "advantage",
        "value": 0.1,
        "low": -0.1,
        "high": 0.3,
        "confidence": 0.95,
        "verdict": "measured",
        "public": False,
        "details": {"members": 3},
    }
    return Finding(**{**fields, **other})


def test_through_json_and_back():
    original = finding()
    assert Finding.from_json(json.loads(json.dumps(original.to_json()))) == original


@pytest.mark.parametrize("change", [{"low": 0.2}, {"high": 0.0}, {"value": 0.5}])
def test_the_value_lies_in_its_interval(change):
    with pytest.raises(ValueError, match="interval"):
        finding(**change)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["value", "low", "high"])
def test_numbers_are_finite(name, bad):
    with pytest.raises(ValueError, match="finite"):
        finding(**{name: bad})


@pytest.mark.parametrize("confidence", [0.5, 1.0, math.nan])
def test_confidence_is_above_a_half(confidence):
    with pytest.raises(ValueError, match="confidence"):
        finding(confidence=confidence)


def test_a_verdict_is_one_of_four():
    with pytest.raises(ValueError, match="verdict"):
        finding(verdict="safe")
    for verdict, meaning in MEANING.items():
        assert finding(verdict=verdict).meaning == meaning


def test_an_attack_is_never_said_to_prove_a_claim():
    assert "cannot prove" in MEANING["holds"] and "not contradicted" in MEANING["holds"]


@pytest.mark.parametrize("details", [{"x": math.nan}, {"x": math.inf}])
def test_details_without_json_are_refused(details):
    with pytest.raises(ValueError, match="JSON"):
        finding(details=details)


def test_details_of_no_json_type_are_refused():
    with pytest.raises(TypeError):
        finding(details={"x": {1, 2}})


@pytest.mark.parametrize("change", [{"extra": 1}, None])
def test_unknown_or_missing_keys_are_refused(change):
    value = finding().to_json()
    if change is None:
        del value["verdict"]
    else:
        value.update(change)
    with pytest.raises(ValueError, match="not a finding"):
        Finding.from_json(value)
