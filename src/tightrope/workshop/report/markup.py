"""HTML by functions: whatever comes as text is escaped, and only what these functions made is not."""

import html
import re

from tightrope.workshop.report.figures import printable


class Markup(str):
    """Text that is HTML already. Only this module, and files of the package, may make one."""

    __slots__ = ()


Child = str | Markup | None


def tag(element: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. `class_` and `data_value` become `class` and `data-value`; `None` and false are left out.

    >>> tag("td", "1 < 2", data_value=1)
    '<td data-value="1">1 &lt; 2</td>'
    """
    opened = element
    for key, value in attributes.items():
        if value is not None and value is not False:
            opened += f" {key.rstrip('_').replace('_', '-')}"
            opened += "" if value is True else f'="{escape(str(value))}"'
    if element in ("meta", "input", "br"):
        return Markup(f"<{opened}>")
    return Markup(f"<{opened}>{join(*children)}</{element}>")


def join(*children: Child) -> Markup:
    """Children one after another; plain text among them is escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))


def escape(text: str) -> Markup:
    """Text as HTML shows it, in content and in quoted attributes."""
    return Markup(html.escape(printable(text), quote=True))


def unbroken(text: str) -> Markup:
    """Escaped text in which no line breaks between a number and its unit, nor inside an interval."""
    return Markup(re.sub(r"(?<=\d) (?=%|[kMG]?B\b)|(?<=,) (?=-?\d[\d.]*\])", "&nbsp;", escape(text)))


def inline_json(text: str) -> Markup:
    """JSON made to lie inside a script element: nothing in it can end the element, open a comment or end a line.

    >>> inline_json('{"a": "</script><!--"}')
    '{"a": "\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def trusted(text: str) -> Markup:
    """Text of this package's or a library's own files, as it is."""
    return Markup(text)
