from typing import Any

from nacre.core.normals.plain import normals as normals
from nacre.core.normals.plain import rounded as rounded

def doubles(words: Any, angles: Any, second: Any, fine: Any, out: Any, /) -> None: ...
