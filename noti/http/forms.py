"""Reads forms: what `POST` carries, and queries, which have the same format.

Enters: bytes of bodies and queries; Content-Types. Leaves: names and values in their order, or why
there are none.
Never: I/O, more fields than allowed, text that is not UTF-8.

Source: WHATWG URL, 5.1 (application/x-www-form-urlencoded parsing), but strict about UTF-8.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from noti.errors import MessageInvalid, TooLarge

FORM: Final = "application/x-www-form-urlencoded"

_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")


def problem_of_type(content_type: str) -> str | None:
    """Return why a body of this Content-Type cannot be read, in one sentence; None if it can."""
    media_type, *parameters = content_type.split(";")
    if media_type.strip().lower() != FORM:
        named = f", not {media_type.strip()[:80]!r}" if media_type.strip() else ""
        return f"The body must be a form: send it with Content-Type: {FORM}{named}."
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in ("utf-8", "utf8"):
            return (
                f"The form must be UTF-8: leave the charset out, or name it, not {charset[:40]!r}."
            )
    return None


def is_media_type(content_type: str) -> bool:
    """Return whether a Content-Type names one at all."""
    return _MEDIA_TYPE.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


def parse_form(body: bytes, fields_max: int) -> list[tuple[str, str]]:
    """Return the fields of a form.

    Raises `MessageInvalid` for what is not UTF-8, also in percent-encoded form, and `TooLarge` for
    more than `fields_max` fields. A percent sign that begins no sequence stands for itself.
    """
    if body.count(b"&") >= fields_max:
        raise TooLarge(f"The form has more than {fields_max} fields; send fewer.")
    try:
        # Plus signs first: those that are percent-encoded are no spaces.
        text = body.decode().replace("+", " ")
        fields = []
        for field in text.split("&"):
            if field:
                name, _, value = field.partition("=")
                fields.append((_decoded(name), _decoded(value)))
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"The form is not UTF-8 ({error.reason}); encode it so.") from None
    return fields


def values_of(query: str, wanted: str) -> tuple[str, ...]:
    """Return the values of a parameter, of a query as it stands in the target.

    Whatever else is in the query, and what is not UTF-8, is no mistake here.
    """
    if wanted not in query:
        return ()
    return tuple([value for name, value in parse_qsl(query) if name == wanted])


def _decoded(text: str) -> str:
    return unquote(text, errors="strict") if "%" in text else text
