"""`--help` of the commands with absl flags, however they are started."""

from __future__ import annotations

import sys
from typing import NoReturn

from absl import flags


def print_help(doc: str, flag: str) -> NoReturn:
    """Prints a command's docstring and its own flags, then exits with 0.

    absl's own help looks for the flags of `__main__`, which for a console script has none.

    Args:
      doc: the docstring.
      flag: one of the command's flags; all that its module defines are listed.
    """
    module = flags.FLAGS.find_module_defining_flag(flag)
    print(f"{doc}\nflags:\n{flags.FLAGS.module_help(module)}")
    sys.exit(0)
