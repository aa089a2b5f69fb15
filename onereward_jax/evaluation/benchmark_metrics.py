"""The metrics of a benchmark: headings, which direction is better, formats."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
      title: heading of its column.
      about: what it is, for the page.
      higher: whether higher values are better.
      places: decimals shown.
      equal: of a metric that compares with the first editor itself, the value that is equal to it.
    """

    title: str
    about: str
    higher: bool
    places: int
    equal: float | None = None

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return "↑" if self.higher else "↓"

    def text(self, value: float) -> str:
        """A value, as shown."""
        return f"{value:.{self.places}f}"


METRICS: dict[str, Metric] = {
    "psnr_kept": Metric(
        "PSNR outside, dB", "PSNR to the source outside the mask, at most 60", True, 1
    ),
    "lpips_kept": Metric("LPIPS outside", "LPIPS to the source, the mask black in both", False, 3),
    "psnr": Metric("PSNR in mask, dB", "PSNR to the target inside the mask, at most 60", True, 1),
    "ssim": Metric("SSIM in mask", "SSIM to the target inside the mask", True, 3),
    "lpips": Metric("LPIPS", "LPIPS to the target, whole pictures", False, 3),
    "clip_text": Metric(
        "CLIP text", "100 times the cosine of prompt and picture, at least 0 (CLIPScore)", True, 1
    ),
    "clip_text_mask": Metric(
        "CLIP text, mask", "the same with a square around the mask only", True, 1
    ),
    "clip_removed": Metric(
        "CLIP to source", "cosine of the square before and after a removal", False, 3
    ),
    "clip_truth": Metric(
        "CLIP to target", "cosine of the square and that of the target, in removals", True, 3
    ),
    "words": Metric(
        "letters read", "share of the words in quotes that OCR reads in the mask", True, 3
    ),
    "seam": Metric(
        "seam, ΔE", "colour step across the mask's border beyond those beside it", False, 2
    ),
    "judge": Metric(
        "judge", "preference of the run's judge over the first editor; 0.5 is equal", True, 3, 0.5
    ),
    "judge_held_out": Metric("held-out judge", "the same by the held-out judge", True, 3, 0.5),
}
"""Name in the tables -> metric, in the order of the columns."""
