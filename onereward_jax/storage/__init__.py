"""Folders in Google Cloud Storage (`gs://bucket/path`), their local copies, and mounted buckets."""

from onereward_jax.storage.bucket_folder import BucketFolder, is_bucket
from onereward_jax.storage.cache_folder import copies_folder
from onereward_jax.storage.fetch import local_path, states_below
from onereward_jax.storage.mounts import mount_of
from onereward_jax.storage.working_copy import WorkingCopy

__all__ = [
    "BucketFolder",
    "WorkingCopy",
    "copies_folder",
    "is_bucket",
    "local_path",
    "mount_of",
    "states_below",
]
