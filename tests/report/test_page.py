"""The page: whole, self-contained, escaped, honest."""

from __future__ import annotations

import copy
import html
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

from nacre.report import Evidence, gather
from nacre.report.page import render
from nacre.report.sections.headline import epsilon_figure, key_figures
from nacre.runs.listing.entry import run_entry
from tests.report import sample

VOID = {"meta", "img", "link", "br", "hr"}
EMPTY_SVG = {"path", "rect", "circle"}


class Walk(HTMLParser):
    """Checks that tags balance; keeps what a reader or a browser would meet."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in EMPTY_SVG
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "code"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return gather(sample.write(tmp_path / "run"))


def bare(tmp_path: Path, **other: Any) -> Evidence:
    """Evidence of a run that was not audited and not protected."""
    plan = sample.unprotected_plan()
    nothing: dict[str, Any] = {"findings": None, "comparison": None, "ledger": None}
    lines = [{"step": 1, "how": "unprotected", "reason": "no noise"}]
    return gather(sample.write(tmp_path / "bare", plan=plan, released=lines, **nothing | other))


def test_well_formed(evidence: Evidence, tmp_path: Path) -> None:
    for found in (evidence, bare(tmp_path)):
        Walk(render(found))


def test_nothing_is_loaded_and_nothing_runs(evidence: Evidence) -> None:
    page = render(evidence)
    for tag, attributes in Walk(page).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or (
            "src" not in attributes
        )
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_is_met(evidence: Evidence) -> None:
    tags = Walk(render(evidence)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        wanted = (attributes.get("aria-labelledby") or "").split()
        wanted += [link[1:] for link in [attributes.get("href") or ""] if link]
        assert set(wanted) <= set(ids)


def test_headings_are_in_order(evidence: Evidence) -> None:
    levels = [int(tag[1]) for tag, _ in Walk(render(evidence)).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_and_pictures_speak(evidence: Evidence) -> None:
    tags = Walk(render(evidence)).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") > 5
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert names.count("svg") == names.count("desc") >= 8


def test_the_figure_that_the_plan_puts_first_stands_first(tmp_path: Path) -> None:
    """Of the rows that may be shown; accuracy stays beside it."""
    plan, compared = sample.plan() | {"figure": "auroc"}, sample.comparison()
    labels = [stat.label for stat in key_figures(gather(sample.write(tmp_path / "old", plan=plan)))]
    assert labels[1] == "Accuracy" and "AUROC" not in labels  # nobody measured it
    figure = {"value": 0.71, "low": 0.6, "high": 0.8, "why": None}
    parts = {"rows": 114, "classes": [], "groups": [], "bins": [], "confusion": []}
    compared["variants"][0]["figures"] = {"figures": {"auroc": figure}, **parts}
    run = sample.write(tmp_path / "run", plan=plan, comparison=compared)
    evidence = gather(run)
    first, second = key_figures(evidence)[1:3]
    assert (first.label, first.value, second.label) == ("AUROC", "0.71", "Accuracy")
    assert first.detail == "95% interval 0.6 to 0.8" and not first.private
    assert "Its AUROC is 0.71; it answers 94.7%" in Walk(render(evidence)).text
    shown = run_entry(run).figures.first
    assert shown is not None and shown[0] == "AUROC"
    withheld = sample.write(tmp_path / "own", plan=plan, comparison=None, findings=None)
    (withheld / "local").mkdir(exist_ok=True)
    (withheld / "local" / "findings.json").write_text("{}")
    first = key_figures(gather(withheld))[1]
    assert (first.label, first.value) == ("AUROC", "withheld")


def test_the_main_figures_are_said(evidence: Evidence) -> None:
    text = Walk(render(evidence)).text
    for said in ("3.98 to 4.00", "for one row, all three parties; at δ = 10⁻⁴, by PLD", "94.7%",
                 "83.3%", "0.021", "not distinguishable from none", "its unprotected twin: 97.4%",
                 "charges nothing", "All 20 planned rounds",
                 "20 models computed from the parties' noised sums",
                 "clean: 0", "mean radius", sample.HEAD, "Public demonstration", "−2.7",
                 "+42.1 points under attack"):  # fmt: skip
        assert said in text or said in render(evidence), said


def test_forbidden_words_never_appear(evidence: Evidence, tmp_path: Path) -> None:
    for found in (evidence, bare(tmp_path)):
        assert not re.search(r"anonym|complian", render(found), re.IGNORECASE)


def hostile(value: Any) -> Any:
    """The same value with something nasty after each text that is not a fixed word."""
    if isinstance(value, dict):
        fixed = {"verdict", "unit", "adjacency"}
        entries = cast(dict[str, Any], value)
        return {k: v if k in fixed else hostile(v) for k, v in entries.items()}
    if isinstance(value, list):
        return [hostile(entry) for entry in cast(list[Any], value)]
    return f'{value}"><script>x</script>' if isinstance(value, str) else value


def test_every_text_is_escaped(evidence: Evidence) -> None:
    walk = Walk(render(hostile(evidence)))
    assert "script" not in {tag for tag, _ in walk.tags}
    assert "clinic" in walk.text
    assert "<script>x</script>" in walk.text


def test_a_run_that_is_not_private_says_so_first(tmp_path: Path) -> None:
    page = render(bare(tmp_path))
    text = Walk(page).text
    assert text.index("Nothing is protected.") < text.index("Privacy loss")
    assert "unbounded" in text
    assert "not measured" in text
    assert "1 unprotected" in text
    assert "This holds as long as" not in text
    assert 'role="note"' in page


def test_nothing_is_called_protected_where_nothing_is(tmp_path: Path) -> None:
    ill = {"name": "ill", "rows": 40, "figures": {"recall": figure(0.9)}}
    parts = {"rows": 114, "classes": [ill], "groups": [], "bins": [], "confusion": []}
    compared = sample.comparison()
    compared["variants"][0]["figures"] = {"figures": {"auroc": figure(0.8)}, **parts}
    found = {"comparison": compared, "findings": {"findings": [sample.evasion()]}}
    evidence = bare(tmp_path, **found)
    evidence["plan"]["techniques"]["adversarial_training"] = "each row moved by PGD"
    text = Walk(render(evidence)).text
    for said in (
        "Nothing is protected.",
        "nothing is protected",
        "Nothing in this run is protected",
    ):
        assert said in text
        text = text.replace(said, "")
    assert not re.findall(r"(?<!un)protected|[Pp]rotection", text)
    assert "the model 94.7%, unprotected 97.4%" in text and "Classes, the model, inter" in text
    assert "Price of robust training" in text and "−2.7" in text
    evidence["plan"]["techniques"]["adversarial_training"] = None
    assert "Against its twin" in render(evidence)

    private = sample.write(tmp_path / "private", comparison=compared)
    text = Walk(render(gather(private))).text
    assert "protected 94.7%, unprotected 97.4%" in text and "Classes, protected model, " in text
    assert "Price of protection" in text and "the model 94.7%" not in text


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.05, "why": None}


def test_a_private_run_has_no_warning(evidence: Evidence) -> None:
    assert 'class="warning"' not in render(evidence)


def test_what_went_wrong_is_a_warning(evidence: Evidence) -> None:
    evidence["released"]["unprotected"] = 2
    assert evidence["ledger"] is not None
    evidence["ledger"]["verified"] = False
    evidence["findings"][0]["verdict"] = "broken"
    text = Walk(render(evidence)).text
    assert "two of its releases left without protection" in text
    assert "The ledger is damaged." in text
    assert "The claim of the membership audit is broken" in text
    assert "the chain was NOT whole" in text


def test_findings_on_private_rows_stay_local(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", findings=None, comparison=None)
    (run / "local" / "findings.json").write_text("{}")
    private = sample.RECIPE.replace("public_demonstration: true", "unit: patient")
    (run / "recipe.yaml").write_text(private)
    text = Walk(render(gather(run))).text
    assert "withheld" in text
    assert "in local/report.html, for their holder alone" in text
    assert "Private rows; utility withheld" in text


def test_accuracy_comes_from_the_evasion_audit_where_nothing_is_compared(tmp_path: Path) -> None:
    text = Walk(render(gather(sample.write(tmp_path / "run", comparison=None)))).text
    assert "It answers 94.7% of test rows correctly." in text
    assert "95% interval 90.7% to 98.7%" in text


def test_what_was_not_measured_has_no_chart(tmp_path: Path) -> None:
    comparison = sample.comparison()
    comparison["variants"] = comparison["variants"][:1]
    comparison["variants"][0] |= {"accuracy": None, "membership_advantage": None}
    plain = sample.membership() | {"details": {}}
    found = {"findings": [sample.evasion(pictures=[], rows=[], curve=[], notes=[]), plain]}
    outcome = sample.outcome() | {"curve": [{"round": 1}], "seconds": {}, "done": 14}
    run = sample.write(tmp_path / "run", comparison=comparison, findings=found, outcome=outcome)
    page = render(gather(run))
    text = Walk(page).text
    assert "14 of 20 planned rounds" in text
    assert 'id="accuracy-t"' not in page and 'id="attacked_accuracy-t"' in page
    assert "What an attack looks like" not in text
    assert "unprotected twin" not in text


def test_no_evasion_audit_and_no_accuracy(tmp_path: Path) -> None:
    found = {"findings": [sample.membership() | {"details": {}}]}
    run = sample.write(tmp_path / "run", comparison=None, findings=found)
    assert "no audit measured it" in Walk(render(gather(run))).text


def test_a_central_run_counts_steps(tmp_path: Path) -> None:
    plan = sample.plan()
    plan["parties"] = [sample.party("all rows", 313, 2.0) | {"takes": None}]
    plan["techniques"]["federated_learning"] = None
    text = Walk(render(gather(sample.write(tmp_path / "run", plan=plan)))).text
    assert "One model was trained on 313 declared rows." in text
    assert "planned steps" in text
    assert "no grant" in text
    assert "all one parties" not in text


def test_a_federation_that_protects_parties(tmp_path: Path) -> None:
    plan = sample.plan()
    client = {"unit": "client", "adjacency": "replace_one", "epsilon_by_step": []}
    plan["parties"] = [sample.party("all rows", 200, 2.0) | client]
    text = Walk(render(gather(sample.write(tmp_path / "run", plan=plan)))).text
    assert "200 parties trained one model" in text
    assert "with other values in place of everything of one party" in text


def test_two_promises_stand_side_by_side(tmp_path: Path) -> None:
    """Each with its unit, its mechanism and whom it holds against; ids stay unique."""
    plan = sample.plan()
    whole = sample.party("all rows", 3, 2.0) | {
        "unit": "client", "account": "clinic", "delta": 1e-2, "against": "those who see models",
    }  # fmt: skip
    plan["parties"] = [whole, *(p | {"against": "the server too"} for p in plan["parties"])]
    run = sample.write(tmp_path / "run", plan=plan)
    page = render(gather(run))
    walk = Walk(page)
    assert "Three parties (east, north and south) trained one model" in walk.text
    about = "What the model can give away about"
    assert f"{about} everything of one party is bounded: epsilon is 2.00" in walk.text
    assert f"{about} one row is bounded: epsilon is at most" in walk.text
    assert "313 rows declared" in walk.text or "939 rows declared" in walk.text
    for part in ("those who see models", "the server too", "rounds", "steps over rows"):
        assert part in walk.text
    assert page.count("The mechanism and its price") == 2
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    figure, detail = epsilon_figure(gather(run))
    assert figure.startswith("2.00 and ")
    assert "for everything of one party" in detail and "for one row, all three parties" in detail


def test_many_parties_fit(evidence: Evidence) -> None:
    one = evidence["plan"]["parties"][0]
    evidence["plan"]["parties"] = [copy.deepcopy(one) | {"name": f"p{i}"} for i in range(40)]  # type: ignore[misc]
    page = render(evidence)
    text = Walk(page).text
    assert "40 parties trained" in text
    assert "The mechanism and its price, all 40 parties" in text
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert max(len(re.findall("columnheader", table)) for table in tables) < 12
    assert all(len(facts.findall(page)) == 1 for facts in map(re.compile, ROWS))


def test_parties_and_accounts_alike_are_one_row_and_one_bar(evidence: Evidence) -> None:
    names = [f"p{place}" for place in range(24)]
    one, ledger = evidence["plan"]["parties"][0], evidence["ledger"]
    assert ledger is not None
    account = ledger["accounts"][0]
    evidence["plan"]["parties"] = [copy.deepcopy(one) | {"name": name} for name in names]  # type: ignore[misc]
    ledger["accounts"] = [copy.deepcopy(account) | {"account": f"clinic/{n}"} for n in names]  # type: ignore[misc]
    text = Walk(render(evidence)).text
    assert text.count("all 24 parties") >= 2 and "clinic/p0 and 23 others" in text
    assert "has least left" not in text
    # Of accounts that differ, the one where the smallest run fits has least left.
    for place, each in enumerate(ledger["accounts"]):
        each["spent"]["epsilon"] = 2 + place / 100
        each["left"]["epsilon"] = 0.5 + abs(place - 7) / 100
    text = Walk(render(evidence)).text
    _, _, after = text.partition("The one of 24 accounts that has least left")
    assert re.search(r"clinic/p\d+", after)[0] == "clinic/p7"  # type: ignore[index]
    evidence["plan"]["parties"][3]["size"] += 1
    text = Walk(render(evidence)).text
    assert "p0, p1, p2, p4, p5" in text


ROWS = [
    f"<dt>{name}</dt>" for name in ("promise", "protects", "draws", "clips", "noise", "account")
]


def test_rows_of_runs_audited_before_are_tables_in_a_fold(tmp_path: Path) -> None:
    old = sample.row()
    for change in old["changes"]:
        del change["scaled"]
    cases = {1: [sample.row()], 2: [old], 3: [sample.row(), old]}
    for number, rows in cases.items():
        found = {"findings": [sample.evasion(rows=rows)]}
        page = render(gather(sample.write(tmp_path / str(number), findings=found)))
        assert ('id="row-1-t"' in page) == (number != 2)
        assert ("1 rows before and after" in page) == (number != 1)


def test_a_curve_that_only_shows_chance_is_not_drawn(evidence: Evidence) -> None:
    assert "Members found" not in render(evidence)
    evidence["findings"][0]["low"] = 0.01
    assert "Members found" in render(evidence)


def test_a_curve_on_the_rows_of_the_base_gives_its_reason(tmp_path: Path) -> None:
    recipe = sample.RECIPE + "fine_tuning: {kind: full, pretrain: {steps: 200}}\n"
    for number, (text, reason) in enumerate(((sample.RECIPE, False), (recipe, True))):
        page = render(gather(sample.write(tmp_path / str(number), recipe=text)))
        assert ("The base was trained on these very rows" in page) == reason
        assert ("watching it costs no privacy" in page) != reason


def test_the_card_has_what_the_recipe_declares_and_blanks(tmp_path: Path) -> None:
    recipe = (
        "data: {kind: table, path: visits.csv, target: back, classes: ['no', 'yes'], unit: patient,"
        " columns: {age: {low: 0, high: 120}, sex: {categories: [F, M]}}}\n"
    )
    plan = sample.plan()
    plan["parties"] = [sample.party("all rows", 480, 2.0) | {"unit": "group"}]
    plan["techniques"]["federated_learning"] = None
    text = Walk(render(gather(sample.write(tmp_path / "run", recipe=recipe, plan=plan)))).text
    for said in ("back: classification into no and yes", "age 0 to 120; sex F and M",
                 "480 values of patient declared of visits.csv", "one holder of all rows",
                 "for all rows of one patient"):  # fmt: skip
        assert said in text, said
    assert text.count("to be filled in") == 4
    recipe = "data: {kind: text, path: notes.jsonl, label: urgent, unit: author}\n"
    model = sample.MODEL | {"shape": [64]}
    run = sample.write(tmp_path / "text", recipe=recipe, model=model)
    assert "text, 64 tokens of a row" in Walk(render(gather(run))).text


def luminance(colour: str) -> float:
    digits = colour * 2 if len(colour) == 3 else colour
    shares = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_in_every_scheme(evidence: Evidence) -> None:
    schemes = re.findall(r":root \{(.*?)\}", render(evidence), re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        tone = dict(re.findall(r"--([a-z-]+\d?): #([0-9a-f]{3,6});", scheme))
        pairs = [(ink, paper) for ink in ("ink", "soft", "accent") for paper in ("paper", "raised")]
        for ink, paper in [*pairs, ("alarm", "alarm-paper")]:
            light, dark = sorted((luminance(tone[ink]), luminance(tone[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def test_facts_of_any_shape_are_written_out(evidence: Evidence) -> None:
    evidence["outcome"]["provenance"] = {"seeds": [1, None], "share": 0.5, "data_hmac": "ab" * 32}
    walk = Walk(render(evidence))
    assert "1, none" in walk.text
    assert "0.5" in walk.text
    assert ("title", "ab" * 32) in {item for _, found in walk.tags for item in found.items()}


def attacked_page(run: Path, found: dict[str, Any]) -> str:
    return render(gather(sample.write(run, findings={"findings": [found]})))


def test_the_attacks_of_a_cascade_are_a_table(tmp_path: Path) -> None:
    page = attacked_page(tmp_path / "run", sample.evasion())
    assert "each on the rows that those before left standing" in page
    assert "APGD-CE" in page and "4,896" in page and "not evidence" not in page


def test_wrong_classes_by_likelihood_are_explained_only_where_an_attack_climbs_towards_them(
    tmp_path: Path,
) -> None:
    words = "so it is another class from row to row"
    for name, said in (
        ("APGD-DLR towards the 2nd likeliest wrong class", True),
        ("APGD-DLR", False),  # of a cascade towards the class that the recipe names
    ):
        found = sample.evasion(stages=[sample.stage(name, 108, 12, 3.0)])
        page = attacked_page(tmp_path / str(said), found)
        assert name in page and "DLR is a ratio" in page and (words in page) == said


def test_a_figure_that_is_no_evidence_says_why(tmp_path: Path) -> None:
    said = "the gradient vanishes at 90 of 128 rows: it is masked, not absent"
    found = sample.evasion(warnings=[said], notes=[f"not evidence: {said}"])
    page = attacked_page(tmp_path / "run", found | {"verdict": "not evidence"})
    assert page.count("vanishes at 90 of 128 rows") == 1
    assert f"not evidence<small>{said}</small>" in page  # beside the verdict, in its cell
    assert "94.7% before any attack" in page
    assert "stay correct, which is not evidence" in page
    assert "a figure that says nothing for the model" in page


def page_of(run: Path, *found: dict[str, Any]) -> str:
    return render(gather(sample.write(run, findings={"findings": list(found)})))


def test_a_certificate_is_drawn_below_the_attack(tmp_path: Path) -> None:
    attacked, proved = sample.evasion(ball=sample.BALL), sample.certificate()
    plain, both = page_of(tmp_path / "a", attacked), page_of(tmp_path / "b", attacked, proved)
    assert "what a certificate proves" in both and "what a certificate proves" not in plain
    assert ">certified<" in both and ">certified<" not in plain
    assert "Certified accuracy by radius" not in both  # one drawing shows the two
    assert "no answer changes with" in both


@pytest.mark.parametrize("other", [{"smoothed": True}, {"ball": sample.BALL | {"kind": "l2"}}])
def test_a_certificate_of_another_claim_is_drawn_alone(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    page = page_of(tmp_path / "run", sample.evasion(ball=sample.BALL), sample.certificate(**other))
    assert "Certified accuracy by radius" in page and "what a certificate proves" not in page
    alone = page_of(tmp_path / "alone", sample.certificate(**other))
    assert ">certified accuracy<" in alone and ">under attack<" not in alone


@pytest.mark.parametrize(
    ("scaling", "ball", "moved", "label", "last"),
    [
        (
            "{kind: declared}",
            {},
            "15% of its declared range",
            "radius, share of the declared",
            "15%",
        ),
        ("{kind: declared}", {"kind": "l2"}, "0.3 in the model's", "radius, in the model's", "0.3"),
        ("{kind: public}", {}, "0.3 standard dev", "radius, standard deviations", "0.3"),
        ("{kind: public}", {"unit": "features"}, "0.3 in its own", "radius, in its own", "0.3"),
        (
            "{kind: public}",
            {"kind": "table"},
            "within all declared",
            "share of every declared",
            "30%",
        ),
    ],
)
def test_words_and_axis_of_a_radius_have_one_scale(
    tmp_path: Path, scaling: str, ball: dict[str, Any], moved: str, label: str, last: str
) -> None:
    recipe = f"data: {{kind: table, path: x.csv, target: ill, scaling: {scaling}}}\n"
    found = {"findings": [sample.evasion(ball=sample.BALL | ball)]}
    page = render(gather(sample.write(tmp_path / "run", findings=found, recipe=recipe)))
    drawn = html.unescape(page[page.index('id="evasion-curve-t"') :].split("</svg>")[0])
    assert moved in drawn and f">{label}" in drawn
    assert f">{last}</text>" in drawn
    assert (">0.3</text>" in drawn) == (last == "0.3")


def test_the_names_of_attacks_are_explained_once(tmp_path: Path) -> None:
    page = page_of(tmp_path / "a", sample.evasion(), sample.evasion())
    for said in ("halves its step", "PMA is the margin", "Square uses no gradient"):
        assert page.count(said) == 1, said
    assert "DLR is" not in page and "column search" not in page
    other = sample.evasion(stages=[sample.stage("constrained APGD, random start 0", 9, 1, 2.0)])
    page = page_of(tmp_path / "b", other)
    assert "repairs each point" in page and "halves its step" not in page
    assert "Their names" not in page_of(tmp_path / "c", sample.evasion(stages=[]))
