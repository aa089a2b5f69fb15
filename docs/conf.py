"""The site: pages in Markdown, the API from docstrings. `launch/docs.sh` builds it.

Nothing is fetched, neither to build the pages nor to read them: math is MathML, which browsers draw
themselves.
"""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import onereward_jax

project = "onereward_jax"
author = "the authors of onereward_jax"
release = onereward_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "onereward_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navbar_persistent": [],  # the side bar has the search
    "show_toc_level": 2,
    "use_download_button": False,
}
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
highlight_language = "bash"  # of indented blocks in pages; docstrings say theirs below
copybutton_exclude = ".linenos, .gp"

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "py:obj"  # a docstring's `name` links where there is such a name
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, under that name
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88


def read_as_markdown(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list):
    """Docstrings are written as Markdown is read; reST wants to be told.

    Indented blocks after an empty line are code, `name`s has a letter after its quote, and name_ is
    no link.
    """
    marked: list[str] = []
    base, blank, inside = 0, True, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip():
            if inside and indent <= base:
                inside = False
            if not inside:
                if blank and marked and indent >= base + 4:
                    language = "python" if _python(line) else "text"
                    marked += [f"{' ' * base}.. code-block:: {language}", ""]
                    inside = True
                else:
                    base = indent
        blank = not line.strip()
        marked.append(line if inside else _plain(line))
    lines[:] = marked


def plain_types(
    app: Sphinx, what: str, name: str, obj: object, options: object, *texts: str | None
) -> tuple[str | None, ...]:
    """Signatures with the names that people write."""

    def plain(text: str | None) -> str | None:
        # Sphinx reads a signature as Python, which "<factory>" is not.
        return text and text.replace("jaxlib._jax.", "").replace("<factory>", "...")

    return tuple(map(plain, texts))


def undocumented(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Fields of named tuples have no docstring but Python's own."""
    return str(getattr(obj, "__doc__", "")).startswith("Alias for field number") or None


def _plain(line: str) -> str:
    line = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line)
    quoted = re.split(r"(`[^`]*`)", line)
    for index, part in enumerate(quoted):
        if index % 2 and re.search(r"^`[~!.]|<", part):  # what a link would read as its own marks
            quoted[index] = f"`{part}`"
        elif index % 2 == 0:
            part = part.replace("*", r"\*") if part.count("*") % 2 else part
            quoted[index] = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", part)
    return "".join(quoted)


def _python(line: str) -> bool:
    return re.match(r"\s*(class|def|from|import|@)\b", line) is not None


def block_math(translator: object, node: nodes.math_block) -> None:
    """An equation on lines of its own."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def inline_math(translator: object, node: nodes.math) -> None:
    """An equation in a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Hooks of this site."""
    app.connect("autodoc-process-docstring", read_as_markdown, priority=400)
    app.connect("autodoc-process-signature", plain_types)
    app.connect("autodoc-skip-member", undocumented)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


html_math_renderer = "mathml"
