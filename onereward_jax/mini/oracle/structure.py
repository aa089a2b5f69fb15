"""Structure: the geometry agrees with the original layout and continues across the mask.

Extensions are judged by what can be seen (`visible_structure`), objects and words by their truth
(`structure_by_truth`).
"""

from __future__ import annotations

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle import structure_by_truth, visible_structure
from onereward_jax.mini.oracle.closeness import weighted
from onereward_jax.mini.oracle.triplet import SceneTruth

WEIGHTS = structure_by_truth.WEIGHTS


def parts(result: Picture, triplet: SceneTruth) -> dict[str, float]:
    """Parts of structure, each in [0, 1]: layout, continuity, form.

    See `visible_structure` for extensions, `structure_by_truth.parts` for the rest.
    """
    if triplet.kind != "scene":
        return structure_by_truth.parts(result, triplet)
    return {
        "layout": visible_structure.layout(result, triplet),
        "continuity": visible_structure.continuity(result, triplet),
        "form": visible_structure.form(result, triplet),
    }


def score(result: Picture, triplet: SceneTruth) -> float:
    """Structure in [0, 1]; 1 for the truth of an object or word, 0.96 on average for a scene's."""
    return weighted(parts(result, triplet), WEIGHTS)
