"""The editor and the judge over HTTP: a queue of requests, a thread that answers, and a page."""

from onereward_jax.edit_server.serve_settings import Limits, ServeSettings

__all__ = ["Limits", "ServeSettings"]
