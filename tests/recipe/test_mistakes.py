"""Every kind of mistake: the exact place, and a sentence that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.core.errors import RecipeError
from nacre.recipe.document import DEEPEST, LARGEST
from nacre.recipe.load import load_recipe, loads
from nacre.recipe.mistakes import MOST_TOLD
from tests.recipe.texts import SMALL, WHOLE


def mistake(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    assert str(caught.value).startswith("r.yaml:")
    assert "\n" not in str(caught.value)
    return caught.value


def changed(old: str, new: str, text: str = WHOLE) -> RecipeError:
    assert text.count(old) == 1, old
    return mistake(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"),
    [
        ("  size: 300", "  sise: 300", 13, "data.sise", "did you mean `size`?"),
        ("seed: 3", "seeed: 3", 3, "seeed", "did you mean `seed`?"),
        ("radius: 0.3", "reach: 0.3", 33, "adversarial_training.attack.ball.reach", "use one of"),
        ("age: {low: 0", "age: {lowest: 0", 10, "data.columns.age.lowest", "`low`"),
        ("  size: 300\n", "", 4, "data.size", "is missing; it takes a whole number"),
        ("radius: 0.3, ", "", 33, "adversarial_training.attack.ball.radius", "is missing"),
        ("name: whole\n", "", 1, "name", "is missing; it takes text"),
        ("nacre: 1\n", "", 1, "nacre", "begin the file with `nacre: 1`"),
        ("nacre: 1\n", "nacre: 2\n", 1, "nacre", "2 is a format that this version does not read"),
        ("nacre: 1\n", "nacre: true\n", 1, "nacre", "True is a format"),
        ("size: 300", "size: ten", 13, "data.size", "must be a whole number, not the text 'ten'"),
        ("size: 300", "size: 3.5", 13, "data.size", "must be a whole number, not 3.5"),
        ("size: 300", "size: true", 13, "data.size", "must be a whole number, not true"),
        ("size: 300", "size:", 13, "data.size", "must be a whole number, not nothing"),
        ("size: 300", "size: [1]", 13, "data.size", "must be a whole number, not a list"),
        ("size: 300", "size: {a: 1}", 13, "data.size", "not keys and values"),
        ("beta: 4", "beta: true", 30, "adversarial_training.beta", "must be a number, not true"),
        ("beta: 4", "beta: '4'", 30, "adversarial_training.beta", "not the text '4'"),
        ('["no", "yes"]', "[0, 1]", 8, "data.classes[0]", 'must be text, not 0; write "0" in quot'),
        ('["no", "yes"]', "no", 8, "data.classes", "must be a list, each entry text"),
        ("[16]", "[16, x]", 17, "model.hidden[1]", "must be a whole number"),
        ("path: rows.csv", "path: false", 6, "data.path", "not false; write it in quotes"),
        ("kind: lora", "kind: lore", 19, "fine_tuning.kind", "did you mean `lora`"),
        ("kind: lora", "kind: 7", 19, "fine_tuning.kind", "'7' is unknown; use one of `full`"),
        ("  kind: lora\n", "", 18, "fine_tuning", "needs `kind`, one of `full`, `head`, "),
        ("{kind: mlp, hidden: [16]}", "mlp", 17, "model", "write `{kind: mlp}`"),
        ("unit: group", "unit: grup", 27, "differential_privacy.unit", "did you mean `group`?"),
        ("unit: group", "unit: 3", 27, "differential_privacy.unit", "must be one of `example`"),
        ("[public_base]", "[private]", 44, "compare[0]", "'private' is unknown"),
        ("[public_base]", "[public_base, public_base]", 44, "compare", "the same entry twice"),
        ("kind: evasion", "kind: evasiom", 43, "audit[1].kind", "did you mean `evasion`?"),
        ("[membership, ", "[extraction, ", 43, "audit[0]", "'extraction' is not built yet"),
        ("kind: evasion", "kind: stealing", 43, "audit[1]", "'stealing' is not built yet"),
        ("[membership, ", "[membreship, ", 43, "audit[0].kind", "did you mean `membership`?"),
        ("radius: 0.3", "radius: -1", 33, "adversarial_training.attack.ball.radius", "radius=-1"),
        ("norm: 0.5", "norm: 0", 22, "gradient_clipping.norm", "norm=0.0 must be > 0"),
        ("seed: 3", "seed: -3", 3, "seed", "seed=-3 must be at least 0"),
        ("name: whole", "name: ' '", 2, "name", "must be a line of text"),
        ("low: 0, high: 120", "low: 5, high: 5", 10, "data.columns.age.low", "must be below"),
        ("low: 0, high", "low: 2019-01-01, high", 10, "data.columns.age.low", "it is 17897"),
        ("low: 0, high", "low: 2019-13-01, high", 10, "data.columns.age.low", "2019-13-01'"),
        ("beta: 4", "beta: .inf", 30, "adversarial_training.beta", ".inf is not finite"),
        ("beta: 4", "beta: -.INF", 30, "adversarial_training.beta", "not finite"),
        ("beta: 4", "beta: .nan", 30, "adversarial_training.beta", "not finite"),
        ("beta: 4", "beta: 1e999", 30, "adversarial_training.beta", "not finite"),
        ("size: 300", "size: 9999999999999999999", 13, "data.size", "is larger than any number"),
        ("size: 300", f"size: {'9' * 5000}", 13, "data.size", "is larger than any number"),
        ("seed: 3", "seed: 3\nseed: 4", 4, "seed", "stands here and on line 3; remove one"),
        ("age: {low", "1: {low", 10, "data.columns", 'write it in quotes: "1"'),
        ("age: {low", "? [a]\n    : {low", 10, "data.columns", "a key must be text, not a list"),
        ("seed: 3", "seed: !!python/name:os.system 3", 3, "seed", "the tag"),
        ("seed: 3", "seed: !!int x", 3, "seed", "the tag"),
        ("seed: 3", "seed: !mine {a: 1}", 3, "seed", "the tag !mine is not allowed"),
        ("name: whole", 'name: "a\\0b"', 2, "name", "no file name could hold"),
        ("name: whole", 'name: "\\ud800"', 2, "name", "no file name could hold"),
    ],
)  # fmt: skip
def test_the_place_and_the_remedy(old: str, new: str, line: int, key: str, says: str) -> None:
    error = changed(old, new)
    assert (error.line, error.key) == (line, key)
    assert says in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "is empty"),
        ("# only a word\n", 1, "is empty"),
        ("\n- a\n- b\n", 2, "must consist of keys and values"),
        ("just text", 1, "must consist of keys and values"),
        ("nacre: 1\nname: [a\n", 3, "check indentation"),
        ("nacre: 1\n\tname: x\n", 2, "indent with spaces"),
        ("nacre: 1\nname: a: b\n", 2, "second colon"),
        ("nacre: 1\n---\nnacre: 1\n", 2, "is not YAML"),
        ("nacre: *nowhere\n", 1, "undefined alias"),
        ("nacre: 1\nname: \x07\n", 2, "no text"),
        ("nacre: " + "[" * 5000, 1, f"more than {DEEPEST} levels"),
        ("a: &a [*a]\n", 1, "aliases make this file grow too large"),
        ('nacre: "\\UFFFFFFFF"\n', None, "is not YAML"),
    ],
)
def test_text_that_is_no_recipe(text: str, line: int | None, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        loads(text, "r.yaml")
    assert caught.value.line == line


@pytest.mark.slow
def test_aliases_cannot_blow_a_file_up() -> None:
    levels = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    assert "grow too large" in str(mistake("nacre: 1\n" + levels))


def test_the_first_mistake_is_told_and_what_is_missing_comes_last() -> None:
    both = SMALL.replace("size: 150", "sizes: 150") + "trainin: {}\n"
    assert mistake(both).key == "data.sizes"


def test_faults_that_have_nothing_to_do_with_each_other_are_told_together() -> None:
    text = WHOLE.replace("sex: {categories", "sex: {categorys").replace("norm: 0.5", "norm: 0")
    text = text.replace("beta: 4", "beta: '4'").replace(
        "epsilon: 4, delta: 1e-4, rows", "epsilon: 4, rows"
    )
    error = mistake(text)
    assert (error.line, error.key) == (11, "data.columns.sex.categorys")
    assert [other.split(": ")[0] for other in error.others] == [
        "r.yaml:22 `gradient_clipping.norm`",
        "r.yaml:30 `adversarial_training.beta`",
        "r.yaml:27 `differential_privacy.delta`",
    ]
    assert error.__notes__ == list(error.others)
    alone = changed("  size: 300", "  sise: 300")  # not missing as well
    assert alone.others == ()
    many = mistake(SMALL + "".join(f"key{i}: 1\n" for i in range(50)))
    assert len(many.others) == MOST_TOLD and "30 more" in many.others[-1]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="no name of a file"):
        load_recipe("a\0b")
    file = tmp_path / "r.yaml"
    file.write_bytes(b"nacre: 1\nname: \xff\xfe\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: is not UTF-8"):
        load_recipe(file)
    file.write_bytes("nacre: 1".encode("utf-16"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(file)
    file.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(RecipeError, match="larger than"):
        load_recipe(file)
    file.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_recipe(file) == loads(SMALL)


def test_a_mistake_in_a_default_section_points_to_it() -> None:
    error = mistake(SMALL + "execution: {threads: 0}\n")
    assert (error.line, error.key) == (8, "execution.threads")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {steps: 0}", "training.steps"),
        ("execution: {microbatch: 0}", "execution.microbatch"),
        ("ledger: {path: x, dataset: a/b}", "ledger.dataset"),
        ("ledger: {path: x, dataset: a, grant: {epsilon: 0, delta: 0.1}}", "ledger.grant.epsilon"),
        ("ledger: {path: x, dataset: a, grant: {epsilon: 1, delta: 1}}", "ledger.grant.delta"),
        ("audit: [{kind: evasion, stop: {interval: 0}}]", "audit[0].stop.interval"),
        ("audit: [{kind: evasion, confidence: 1}]", "audit[0].confidence"),
        ("audit: [{kind: membership, confidence: 1}]", "audit[0].confidence"),
        ("audit: membership", "audit"),
        ("audit: [3]", "audit[0]"),
    ],
)
def test_values_that_the_shared_sections_refuse(text: str, key: str) -> None:
    error = mistake(f"{SMALL}{text}\n")
    assert (error.line, error.key) == (8, key)


def test_true_and_false_stand_without_quotes() -> None:
    error = mistake(SMALL.replace("size: 150", "size: 150\n  public_demonstration: yes"))
    assert (error.line, error.key) == (7, "data.public_demonstration")
    assert "write true or false, without quotes" in str(error)
