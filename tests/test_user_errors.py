"""The one sentence of an error that a user can mend."""

import pytest

from onereward_jax.common.user_errors import exit_with


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("sqlalchemy.orm", "pip install -e '.[people]'"),
        ("sklearn", "pip install -e '.[mini]' or pip install -e '.[people]'"),
        ("rapidocr", "pip install -e '.[mini]'"),
        ("gcsfs", "pip install -e '.[gcs]'"),
        ("my_plugin", "the extras of setup.py bring it"),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(module, hint, capsys):
    with pytest.raises(SystemExit) as stopped:
        exit_with(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: No module named {module!r}; {hint}\n"
