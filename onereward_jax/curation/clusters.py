"""A diverse choice of pictures: K-means on embeddings, then some pictures of each cluster.

Section 4.2 of the paper states no more than that; the number of clusters, and that both pictures
near the centre (typical) and far from it (unusual) are taken, are ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32
from sklearn.cluster import MiniBatchKMeans

from onereward_jax.common.rng import generator

BATCH = 4096
"""Embeddings per step of K-means."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The cluster of each picture.

    Attributes:
      labels: cluster of each picture.
      distances: Euclidean distance of each embedding from the centre of its cluster, in [0, 2].
    """

    labels: Int32[np.ndarray, "n"]
    distances: Float32[np.ndarray, "n"]


def find_clusters(embeddings: Float32[np.ndarray, "n e"], count: int, seed: int) -> Clusters:
    """Mini-batch K-means; the same embeddings in the same order give the same clusters.

    Args:
      embeddings: of length 1.
      count: number of clusters, at most n.
      seed: of the initial centres and of the batches.
    """
    means = MiniBatchKMeans(
        count,
        batch_size=max(BATCH, 4 * count),
        n_init=1,
        random_state=int(generator(seed, "clusters").integers(2**31)),
    )
    labels = means.fit_predict(embeddings).astype(np.int32)
    distances = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), BATCH):
        part = slice(start, start + BATCH)
        offsets = embeddings[part] - means.cluster_centers_[labels[part]]
        distances[part] = np.linalg.norm(offsets, axis=1)
    return Clusters(labels, distances)


def choose_of_clusters(
    clusters: Clusters, names: Sequence[str], *, near: int, far: int, seed: int
) -> list[int]:
    """Chooses pictures of every cluster, in ascending order.

    Args:
      clusters: of all pictures.
      names: unique names of the pictures, which break ties.
      near: number of pictures nearest to the centre.
      far: number of pictures drawn from the farther half of the others.
      seed: of this draw.
    """
    chosen = []
    for cluster in np.unique(clusters.labels).tolist():
        members = np.flatnonzero(clusters.labels == cluster).tolist()
        members.sort(key=lambda place: (clusters.distances[place], names[place]))
        chosen += members[:near]
        others = members[near:]
        farther = others[len(others) - max(math.ceil(len(others) / 2), min(far, len(others))) :]
        rng = generator(seed, "far", cluster)
        chosen += rng.permutation(farther)[:far].astype(int).tolist()
    return sorted(chosen)
