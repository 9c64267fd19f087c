from nacre.core.plain import normals as normals
from nacre.core.plain import rounded as rounded
