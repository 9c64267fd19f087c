"""What hides one unit: independent and correlated noise, the only makers of a `Release`."""

from nacre.differential_privacy.noise.independent import Gaussian, NoNoise

__all__ = ["Gaussian", "NoNoise"]
