"""Adding one part touches as few files as are promised, and the part speaks for itself everywhere.

One part of each kind is put into a copy of the package: its own file from `tests/extensions`, and
the lines that its lists need. The copy then plans, runs and reports with them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.tiny import CENTRAL, FEDERATED, changed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SUBMITTED = ROOT / "tests" / "extensions"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is added: a file of its own, and lines changed in others."""

    source: str  # in tests/extensions
    home: str  # its place in the package
    edits: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    most: int  # files that it may touch

    def add(self, package: Path) -> int:
        """Puts it into the package; the number of files that this touched."""
        shutil.copy(SUBMITTED / self.source, package / self.home)
        for name, changes in self.edits.items():
            file = package / name
            text = file.read_text(encoding="utf-8")
            for old, new in changes:
                assert text.count(old) == 1, f"{name} has not one {old!r}"
                text = text.replace(old, new)
            file.write_text(text, encoding="utf-8")
        return 1 + len(self.edits)


def _before(line: str, added: str) -> tuple[str, str]:
    return line, f"{added}\n{line}"


SURENESS = '''
@dataclass(frozen=True, kw_only=True)
class Sureness(AuditOfRows):
    """Count the test rows that are answered rightly and surely."""

    kind: Literal["sureness"] = "sureness"
    most: float = 0.5
    """Loss of a row that is answered surely."""
    confidence: float = 0.95
    """Of the interval."""

    headline: ClassVar[str] = "Sure and right"
    unit: ClassVar[FigureUnit] = "share"

    def sentence(self) -> str:
        """The audit with its number."""
        return f"sureness: right at a loss of at most {self.most:g}"

    def lacks(self, data: AnyData, ball: Ball | None) -> str | None:
        """Test rows."""
        return without_test_rows(self.kind, data)

'''

PARTS = {
    "clip rule": Part(
        source="squashed.py",
        home="gradient_clipping/squashed.py",
        edits={
            "gradient_clipping/options.py": [
                _before(
                    "\nUnitClip = Flat |", "from nacre.gradient_clipping.squashed import Squashed"
                ),
                ("UnitClip = Flat |", "UnitClip = Squashed | Flat |"),
                ("CLIP_RULES = (Flat,", "CLIP_RULES = (Squashed, Flat,"),
            ]
        },
        most=2,
    ),
    "attack": Part(
        source="nudge.py",
        home="adversarial_training/attacks/nudge.py",
        edits={
            "adversarial_training/attacks/options.py": [
                _before(
                    "\nAttackOption = FGSM |",
                    "from nacre.adversarial_training.attacks.nudge import Nudge",
                ),
                ("AttackOption = FGSM |", "AttackOption = Nudge | FGSM |"),
                ("ATTACKS = (FGSM,", "ATTACKS = (Nudge, FGSM,"),
            ]
        },
        most=2,
    ),
    "aggregate": Part(
        source="trimmed.py",
        home="federated_learning/aggregates/trimmed.py",
        edits={
            "federated_learning/aggregates/rules.py": [
                _before(
                    "\nRuleOption = (",
                    "from nacre.federated_learning.aggregates.trimmed import Trimmed",
                ),
                ("RuleOption = (", "RuleOption = (\n    Trimmed |"),
                ("RULES = (", "RULES = (\n    Trimmed,"),
            ]
        },
        most=2,
    ),
    "audit": Part(
        source="sureness.py",
        home="audit/model_security/sureness.py",
        edits={
            "recipe/audits.py": [
                _before("\nAuditOption = CertificateAudit |", SURENESS),
                ("AuditOption = CertificateAudit |", "AuditOption = Sureness | CertificateAudit |"),
            ],
            "audit/catalogue.py": [
                _before(
                    "from nacre.audit.target import",
                    "from nacre.audit.model_security.sureness import sureness",
                ),
                ("import CanaryAudit, ", "import CanaryAudit, Sureness, "),
                ("    Evasion: evasion,", "    Sureness: sureness,\n    Evasion: evasion,"),
            ],
        },
        most=3,
    ),
    "data kind": Part(
        source="rings.py",
        home="data/rings.py",
        edits={
            "data/__init__.py": [
                _before("from nacre.data.sampling import", "from nacre.data.rings import Rings"),
                ("AnyData = Builtin |", "AnyData = Rings | Builtin |"),
                (" = (Builtin, Table,", " = (Rings, Builtin, Table,"),
            ]
        },
        most=2,
    ),
    "noise": Part(
        source="wide.py",
        home="differential_privacy/noise/wide.py",
        edits={
            "differential_privacy/options.py": [
                _before(
                    "\n\nclass TakenBack",
                    "from nacre.differential_privacy.noise.wide import Wide, WideNoise",
                ),
                ("NoiseOption = GaussianNoise |", "NoiseOption = WideNoise | GaussianNoise |"),
                ("    GaussianNoise,\n", "    WideNoise,\n    GaussianNoise,\n"),
                ("BuiltNoise = Gaussian |", "BuiltNoise = Wide | Gaussian |"),
            ],
            "differential_privacy/events.py": [  # its price: more noise than is paid for
                _before(
                    "\nif TYPE_CHECKING:",
                    "from nacre.differential_privacy.noise.wide import Wide",
                ),
                ("isinstance(noise, Gaussian |", "isinstance(noise, Wide | Gaussian |"),
            ],
        },
        most=3,
    ),
    "verb": Part(
        source="hello.py",
        home="cli/hello.py",
        edits={"cli/main.py": [('VERBS = {\n', 'VERBS = {\n    "hello": "Say hello.",\n')]},
        most=2,
    ),
}  # fmt: skip

BALL = {"kind": "linf", "radius": 0.1}
RECIPES: dict[str, dict[str, Any]] = {
    "clip rule": changed(CENTRAL, {"gradient_clipping": {"kind": "squashed", "ceiling": 0.75}}),
    "attack": changed(
        CENTRAL,
        {"adversarial_training": {"kind": "madry", "attack": {"kind": "nudge", "ball": BALL}}},
    ),
    "aggregate": changed(
        FEDERATED,
        {"federated_learning.gather": {"kind": "plain", "aggregate": {"kind": "trimmed"}}},
    ),
    "audit": changed(CENTRAL, {"audit": [{"kind": "sureness", "most": 0.25}]}),
    "data kind": changed(CENTRAL, {"data": {"kind": "rings", "size": 120}}),
    "noise": changed(CENTRAL, {"differential_privacy.noise": {"kind": "wide", "factor": 1.25}}),
    # All of one run together, taken to its report.
    "run": changed(
        CENTRAL,
        {
            "data": {"kind": "rings", "size": 120},
            "training.steps": 2,
            "gradient_clipping": {"kind": "squashed", "ceiling": 0.75},
            "differential_privacy.noise": {"kind": "wide", "factor": 1.25},
            "adversarial_training": {"kind": "madry", "attack": {"kind": "nudge", "ball": BALL}},
            "audit": [{"kind": "sureness", "most": 0.25}],
        },
    ),
}

DRIVER = """
import contextlib, io, json, sys
from pathlib import Path

from nacre.cli.main import cli

def said(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([*words, "--json"])
    return json.loads(out.getvalue())

names = sys.argv[1:]
found = {name: said("plan", f"{name}.yaml") for name in names if name not in ("verb", "run")}
found["verb"] = said("hello")
found["run"] = said("run", "run.yaml", "--into", "finished")
found["evidence"] = json.loads(Path("finished/evidence.json").read_text())
found["page"] = Path("finished/report.html").read_text()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Extended:
    """What the extended copy said, and how many files each part touched."""

    touched: dict[str, int]
    said: dict[str, Any]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Extended]:
    """A copy of the package with all parts in it, and what its command line says."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "nacre", folder / "nacre")
    touched = {name: part.add(folder / "nacre") for name, part in PARTS.items()}
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, *PARTS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0 and ran.stdout, ran.stderr[-3000:]
    yield Extended(touched, json.loads(ran.stdout))


@pytest.mark.parametrize("name", PARTS)
def test_adding_a_part_touches_few_files(extended: Extended, name: str) -> None:
    assert extended.touched[name] <= PARTS[name].most


def test_a_new_clip_rule_is_described_as_itself(extended: Extended) -> None:
    facts = extended.said["clip rule"]
    sentence = "Each unit's gradient is squashed below an L2 norm of 0.75."
    assert facts["techniques"]["gradient_clipping"] == sentence
    assert facts["parties"][0]["clip"] == {"kind": "squashed", "norm": 0.75}
    evidence = extended.said["evidence"]["plan"]
    assert evidence["techniques"]["gradient_clipping"] == sentence
    assert evidence["parties"][0]["clip"]["kind"] == "squashed"
    assert "squashed, 0.75" in extended.said["page"] and "flat" not in extended.said["page"]


def test_a_new_attack_is_described_as_itself(extended: Extended) -> None:
    said = extended.said["attack"]["techniques"]["adversarial_training"]
    assert "a nudge of 0.5 radii inside an linf ball of radius 0.1" in said
    assert "a nudge of 0.5 radii" in extended.said["page"]


def test_a_new_aggregate_is_described_as_itself(extended: Extended) -> None:
    said = extended.said["aggregate"]["techniques"]["federated_learning"]
    assert "the server takes the trimmed mean of the changes" in said


def test_a_new_audit_is_planned_run_and_reported_as_itself(extended: Extended) -> None:
    assert extended.said["audit"]["private"]
    (found,) = extended.said["evidence"]["findings"]
    assert (found["audit"], found["headline"]) == ("sureness", "Sure and right")
    page = extended.said["page"]
    assert "Sure and right" in page and f"{100 * found['value']:.1f}" in page


def test_new_data_are_planned_and_trained_on(extended: Extended) -> None:
    assert extended.said["data kind"]["classes"] == ["inner", "outer"]
    assert extended.said["evidence"]["plan"]["classes"] == ["inner", "outer"]
    assert extended.said["evidence"]["outcome"]["done"] == 2


def test_a_new_noise_is_priced_held_to_its_plan_and_described_as_itself(extended: Extended) -> None:
    facts = extended.said["noise"]
    said = facts["techniques"]["differential_privacy"]
    assert said.startswith("Gaussian noise 1.25 times as wide as it is priced hides one row")
    assert facts["parties"][0]["noise"]["kind"] == "wide"
    assert 0 < facts["parties"][0]["epsilon"] <= 8
    (released,) = extended.said["evidence"]["released"]["ranges"]
    multiplier = extended.said["evidence"]["plan"]["parties"][0]["noise"]["multiplier"]
    assert released["as_planned"]
    assert released["deviation"] == pytest.approx([1.25 * 0.75 * multiplier] * 2)


def test_a_new_verb_answers(extended: Extended) -> None:
    assert extended.said["verb"] == {"said": "hello"}
