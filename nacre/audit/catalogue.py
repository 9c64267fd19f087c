"""Every audit that a recipe can name, by the type of its option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nacre.audit.data_privacy.canaries import canaries
from nacre.audit.data_privacy.membership import membership
from nacre.audit.federation.poisoning import poisoning
from nacre.audit.finding import Finding
from nacre.audit.model_security.certificate import certificate
from nacre.audit.model_security.evasion import evasion
from nacre.audit.target import AuditProgress, Target
from nacre.recipe.audits import CanaryAudit, CertificateAudit, Evasion, Membership, Poisoning

# Each function takes the option it stands beside; a law test runs over them.
AUDITS: dict[type, Callable[[Target, Any, AuditProgress], Finding]] = {
    Evasion: evasion,
    Membership: membership,
    CanaryAudit: canaries,
    Poisoning: poisoning,
    CertificateAudit: certificate,
}
"""`AUDITS[type(option)](target, option, advance)` attacks the target as the option says."""
