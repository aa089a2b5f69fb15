"""The labelling interface of a Label Studio project: pictures in a grid, choices per dimension."""

from __future__ import annotations

from xml.etree import ElementTree

from onereward_jax.tasks import DIMENSIONS, Task

LETTERS = "ABCDEFGHIJ"
"""Names of the candidates."""

NO_DIFFERENCE = "no difference"


def interface(task: Task, count: int, has_image: bool, has_mask: bool) -> str:
    """The XML of a project.

    Args:
      task: the task, which has the dimensions.
      count: number of candidates; of two, the best is asked only.
      has_image, has_mask: whether there is a source image, and a mask.
    """
    view = ElementTree.Element("View")
    add = ElementTree.SubElement
    add(view, "Header", value=task.title)
    add(view, "Text", name="prompt", value="$prompt")
    row = add(view, "View", style="display: flex; flex-wrap: wrap; gap: 8px")
    shown = [("source", "image")] if has_image else []
    shown += [("mask: edited where it is white", "mask")] if has_mask else []
    shown += [(letter, f"candidate_{letter}") for letter in LETTERS[:count]]
    for title, name in shown:
        cell = add(row, "View", style="flex: 1 1 280px")
        add(cell, "Header", value=title, size="5")
        add(cell, "Image", name=name, value=f"${name}", zoom="true")
    to_name = answered_picture(has_image)
    for dimension in DIMENSIONS[task]:
        add(view, "Header", value=f"{dimension.title}: the best", size="5")
        best = _choices(view, f"best_{dimension}", to_name)
        for value in (*LETTERS[:count], NO_DIFFERENCE):
            add(best, "Choice", value=value)
        if count > 2:
            asked = {
                "visibleWhen": "choice-selected",
                "whenTagName": f"best_{dimension}",
                "whenChoiceValue": ",".join(LETTERS[:count]),
            }
            inner = add(view, "View", **asked)
            add(inner, "Header", value=f"{dimension.title}: the worst", size="5")
            # Label Studio asks for it only while the view around it is visible.
            worst = _choices(inner, f"worst_{dimension}", to_name)
            for value in LETTERS[:count]:
                add(worst, "Choice", value=value)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def answered_picture(has_image: bool) -> str:
    """Name of the picture that answers belong to in Label Studio."""
    return "image" if has_image else f"candidate_{LETTERS[0]}"


def _choices(parent: ElementTree.Element, name: str, to_name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        parent,
        "Choices",
        name=name,
        toName=to_name,
        choice="single-radio",
        showInline="true",
        required="true",
    )
