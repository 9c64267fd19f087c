from nacre.core.normals.plain import normals as normals
from nacre.core.normals.plain import rounded as rounded
