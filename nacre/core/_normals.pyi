import numpy as np
from numpy.typing import NDArray

from nacre.core.plain import Floats, Words

def normals(words: Words, angles: Words, out: Floats) -> None: ...
def rounded(
    noise: Floats,
    value: Floats,
    spread: float,
    step: float,
    margin: float,
    out: Floats,
    uncertain: NDArray[np.int32],
) -> int: ...
