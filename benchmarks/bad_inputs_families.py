"""The families of odd inputs: each has `prepare(folder)` and `cases(folder, random)`."""

from __future__ import annotations

import bad_inputs_configs
import bad_inputs_weights

FAMILIES = {
    "weights": bad_inputs_weights,
    "configs": bad_inputs_configs,
}
"""Name -> module. `prepare` writes the intact inputs once; `cases` yields the same cases in every
process that calls it with the same folder and random state."""
