"""Secure sums: masks that cancel, so the server learns the sum of the changes and none of them."""

from nacre.federated_learning.secure.in_process import KeysInProcess
from nacre.federated_learning.secure.member import Member
from nacre.federated_learning.secure.option import SecureGather
from nacre.federated_learning.secure.sums import Secure
from nacre.federated_learning.secure.survivors import SumTerms

__all__ = ["KeysInProcess", "Member", "Secure", "SecureGather", "SumTerms"]
