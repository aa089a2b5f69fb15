"""Order of collectives over CPU processes; test_real_run.py has the runs that need it."""

import os
import subprocess
import sys

import jax

from onereward_jax.parallel.collective_order import FLAG, fix_collective_order

SCHEDULE = """
import os, sys
import jax, jax.numpy as jnp
from onereward_jax.parallel.collective_order import fix_collective_order
if sys.argv[1] == "fixed":
    fix_collective_order()
compiled = jax.jit(lambda x: [jnp.tanh(x @ x * i).sum(0) + jnp.sin(x.T @ x * i).sum(1)
                              for i in range(4)]).lower(jnp.ones((64, 64))).compile()
lines = compiled.as_text().splitlines()
print([line.split()[0] for line in lines if " = " in line])
"""


def schedule(how):
    outcome = subprocess.run(
        [sys.executable, "-c", SCHEDULE, how],
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return outcome.stdout


def test_xla_reads_the_flag_though_jax_is_imported_already():
    assert schedule("fixed") != schedule("free")


def test_other_flags_and_a_wish_of_the_user_are_left_alone():
    environment = {"XLA_FLAGS": "--a=1"}
    fix_collective_order(environment)
    assert environment == {"XLA_FLAGS": f"--a=1 --{FLAG}=false"}
    environment = {"XLA_FLAGS": f"--{FLAG}=true"}
    fix_collective_order(environment)
    assert environment == {"XLA_FLAGS": f"--{FLAG}=true"}


def test_other_platforms_do_not_get_it():
    environment, before = {}, jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        fix_collective_order(environment)
    finally:
        jax.config.update("jax_platforms", before)
    assert not environment
