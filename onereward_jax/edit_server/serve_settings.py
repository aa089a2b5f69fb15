"""Settings of the editor's server; works without the extra `people`."""

from __future__ import annotations

import dataclasses

from onereward_jax.annotation.web_settings import is_loopback


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
      upload_mib: MiB of the body of a request; pictures are in it as base64.
      megapixels: millions of pixels of a picture, a mask or a canvas, read from its header.
      steps: calls of the model for an edit: sampling steps, times the separate areas of a mask.
      queue: requests that wait; further ones are refused with 503.
      kept: finished edits that can be fetched; the oldest are forgotten first.
      kept_mib: MiB of their sources, masks and results.

    Raises:
      ValueError: a limit is below 1.
    """

    upload_mib: int = 32
    megapixels: int = 40
    steps: int = 200
    queue: int = 16
    kept: int = 64
    kept_mib: int = 512

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"--max_{field.name} is {value}, at least 1 expected")


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where a server listens, and what it allows.

    Attributes:
      host, port: where it listens; port 0: any free one.
      url: address that people use if it is another, e.g. "https://..." of a TLS proxy; "": none.
      token: what requests must carry; "": everybody may ask.
      limits: what a request may ask for.
      batch_size: pictures of one size that are edited together; smaller batches are filled up to
        it, so that a size is compiled once. At least 1.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    url: str = ""
    token: str = ""
    limits: Limits = Limits()
    batch_size: int = 1

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)
