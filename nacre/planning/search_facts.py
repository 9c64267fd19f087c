"""What plan and report say of a search; all of it public."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacre.figures.names import KINDS, FigureName, usual
from nacre.planning.alternatives import settings_in_words
from nacre.recipe.schema import Recipe
from nacre.recipe.tune import PublicScore, Settings, Tune


@dataclass(frozen=True)
class SearchFacts:
    """A search, and which alternative this is about; None while none is chosen."""

    tune: Tune
    figure: str  # by which trials are compared
    chosen: Settings | None = None

    @classmethod
    def of(cls, recipe: Recipe, tune: Tune, chosen: Settings | None) -> SearchFacts:
        """The search of a recipe."""
        return cls(tune, figure(recipe, tune), chosen)

    def added_to(self, facts: dict[str, Any]) -> dict[str, Any]:
        """plan.json, with what the search adds to it."""
        techniques = dict(facts["techniques"])
        techniques["differential_privacy"] = " ".join(
            [techniques["differential_privacy"], self.sentence()]
        )
        return facts | {
            "techniques": techniques,
            "assumptions": [*facts["assumptions"], *_ASSUMED],
            "search": {
                "over": {key: list(values) for key, values in self.tune.over.items()},
                "trials": self.tune.trials,
                "shape": self.tune.shape,
                "score": self.figure,
                "chosen": self.chosen,
            },
        }

    def sentence(self) -> str:
        """What the epsilon covers, and what was chosen."""
        said = (
            f"Epsilon is that of a whole search: the best of about {self.tune.trials:g} trials, "
            f"each with one of {self.tune.alternatives} settings, compared by {self.figure}."
        )
        return (
            f"{said} The best had {settings_in_words(self.chosen)}."
            if self.chosen is not None
            else said
        )

    def how_many(self) -> str:
        """How many trials to wait for."""
        law = self.tune.law
        return (
            f"about {self.tune.trials:g} of them; one search in ten takes more than "
            f"{law.at_most(0.9)}, one in a hundred more than {law.at_most(0.99)}"
        )


def figure(recipe: Recipe, tune: Tune) -> str:
    """By what trials are compared, in words."""
    score = tune.score
    if not isinstance(score, PublicScore):
        return f"a count of right answers to private units, with noise of {score.deviation:g}"
    return f"{KINDS[public_figure(recipe, score)].words} on public rows"


def public_figure(recipe: Recipe, score: PublicScore) -> FigureName:
    """The figure on public rows that decides."""
    return score.figure if score.figure is not None else usual(recipe.schema.task)


_ASSUMED = (
    "How many trials the search made, how long it took, and everything of its losing trials stay "
    "secret; they are in `local/` while it runs and removed at its end. Who could time it learns "
    "about how many trials there were.",
)
