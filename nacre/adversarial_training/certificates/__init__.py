"""Proofs that no attack can succeed: bounds through the layers, and randomized smoothing."""

from nacre.adversarial_training.certificates.options import (
    CERTIFICATES,
    CROWN,
    IBP,
    Certificate,
    CertificateOption,
    Smoothing,
)

__all__ = ["CERTIFICATES", "CROWN", "IBP", "Certificate", "CertificateOption", "Smoothing"]
