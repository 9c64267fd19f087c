"""Where a pretrained model is: a folder, this machine's cache, or the hub; asked once, in time."""

# huggingface_hub is untyped in parts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import difflib
from pathlib import Path

from nacre.core.errors import Refusal

_SECONDS = 10.0  # that the hub has for an answer


def hub_source(name: str, folder: Path) -> tuple[str, bool]:
    """(what to load, whether nothing may be fetched for it).

    A folder, relative to `folder`, comes first; then what this machine has fetched before, which
    is taken as it is. Only then is the hub asked, once. Raises `Refusal` where it is none of these.
    """
    place = folder / name
    if place.is_dir():
        return str(place), True
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise Refusal(
            f"there is no folder {place}, and a model of the hub needs transformers, which is not "
            "installed; run `pip install 'nacre[text]'`"
        ) from error
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return name, True
        huggingface_hub.HfApi().model_info(name, timeout=_SECONDS)
    except HFValidationError as error:
        raise Refusal(
            f"there is no folder {place}, and no model of the hub can have such a name; correct "
            "`name`"
        ) from error
    except Exception as error:  # whatever a network does
        reason = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
        raise Refusal(
            f"there is no folder {place}, and the Hugging Face hub gives no model {name!r} "
            f"({reason}); {_remedy(place)}"
        ) from error
    return name, False


def file_beside(source: str, name: str) -> Path | None:
    """A small file beside a model that not every model has; None where this one has none, or where
    nobody can be asked.

    `source` is what `hub_source` gave. What this machine has fetched before is not asked for again.
    """
    if (folder := Path(source)).is_dir():
        return folder / name if (folder / name).is_file() else None
    import huggingface_hub

    known = huggingface_hub.try_to_load_from_cache(source, name)
    if known is not None:  # a path, or the mark of a file that the hub said it does not have
        return Path(known) if isinstance(known, str) else None
    try:
        return Path(huggingface_hub.hf_hub_download(source, name, etag_timeout=_SECONDS))
    except Exception:  # the hub has none, or a network does whatever it does
        return None


def _remedy(place: Path) -> str:
    """What to do where a model's folder is missing: the one that may have been meant, if any."""
    beside = place.parent.glob("*/config.json") if place.parent.is_dir() else ()
    names = [config.parent.name for config in beside]
    if near := difflib.get_close_matches(place.name, names, n=1):
        return f"did you mean {near[0]!r}?"
    return (
        "put config.json, model.safetensors and the tokenizer's files into that folder, or correct "
        "`name`"
    )
