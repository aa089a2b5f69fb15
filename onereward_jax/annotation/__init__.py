"""Human preferences: questions, answers, storage and annotator agreement."""

from onereward_jax.annotation.agreement import Agreement, agreement_by_dimension
from onereward_jax.annotation.records import Candidate, Preference
from onereward_jax.annotation.store import PreferenceStore

__all__ = ["Agreement", "Candidate", "Preference", "PreferenceStore", "agreement_by_dimension"]
