"""Filters as SQL: a tree becomes an expression over the tables.

No character of a filter gets into the SQL: columns come from `COLUMNS`, operators from
`_OPERATORS`, and every value is a bound parameter. What only SQLite needs is in functions.py;
in another database a migration would make the functions whose names begin with mmsearch.
"""

from __future__ import annotations

import operator
from datetime import UTC
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    LargeBinary,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    not_,
    or_,
    select,
)

from mmsearch.catalog.tables import captions, contents, files, folders, items, labels, parts
from mmsearch.filters import And, Compare, Date, Field, Filter, Kind, Near, Not, Operator, Or

_SECOND = 10**9  # nanoseconds
_SLASH = case((folders.c.path == b"/", b""), else_=b"/")
_PATH = cast(folders.c.path.op("||")(_SLASH).op("||")(files.c.name), LargeBinary)

_DEGREE = 111.0  # km along a meridian, a little less than there are

# A field's expression, over files joined with their folders, contents and items. Dates are
# moments, in nanoseconds since 1970.
COLUMNS: dict[str, Any] = {
    "path": _PATH,
    "name": files.c.name,
    "extension": func.mmsearch_extension(files.c.name, type_=String),
    "format": func.lower(contents.c.format),
    "modality": items.c.modality,
    "orientation": case(
        (contents.c.width > contents.c.height, "landscape"),
        (contents.c.width < contents.c.height, "portrait"),
        (contents.c.width == contents.c.height, "square"),
    ),
    "width": contents.c.width,
    "height": contents.c.height,
    "megapixels": cast(contents.c.width, Float) * contents.c.height / 1e6,
    "duration": contents.c.duration,
    "size": files.c.size,
    "taken": func.coalesce(
        func.mmsearch_moment(contents.c.taken, type_=BigInteger), files.c.mtime_ns
    ),
    "modified": files.c.mtime_ns,
    "added": cast(files.c.added_at, BigInteger) * _SECOND,
    "camera": func.mmsearch_lower(contents.c.camera, type_=String),
    "lens": func.mmsearch_lower(contents.c.lens, type_=String),
    "iso": contents.c.iso,
}
# Of a field that has several texts: each of them, which row it belongs to, and that row's id.
TEXTS: dict[str, tuple[Any, Any, Any]] = {
    "caption": (parts.c.text, captions.c.file_id, files.c.id),
    "label": (labels.c.label, labels.c.content_id, contents.c.id),
}
_TYPES: dict[Kind, Any] = {  # numbers: their own
    Kind.WORD: String(),
    Kind.TEXTS: String(),
    Kind.PATH: LargeBinary(),
}
_OPERATORS = {
    Operator.EQUAL: operator.eq,
    Operator.DIFFERENT: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.MORE: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


def expression(filter: Filter) -> Any:
    """The condition that a tree stands for; unknown where the tree is, as SQL has it."""
    match filter:
        case And(parts):
            return and_(*map(expression, parts))
        case Or(parts):
            return or_(*map(expression, parts))
        case Not(part):
            return not_(expression(part))
        case Near():
            return _near(filter)
        case Compare(field, _, Date() as date) if field.name == "taken":
            return _taken(filter.operator, date)
    return _comparison(filter)


def _comparison(compare: Compare) -> Any:
    if compare.field.kind is Kind.TEXTS:
        return _any_of(compare)
    column, value = COLUMNS[compare.field.name], compare.value
    if isinstance(value, Field):
        return _OPERATORS[compare.operator](column, COLUMNS[value.name])
    if isinstance(value, Date):
        return _within(column, compare.operator, *value.span())
    bound = literal(value, _TYPES.get(compare.field.kind))
    if compare.operator is Operator.LIKE:
        return func.mmsearch_like(bound, column, type_=Boolean)
    return _OPERATORS[compare.operator](column, bound)


def _any_of(compare: Compare) -> Any:
    """Whether any text of a row fits; asked of all rows at once, which SQLite does one time."""
    text, owner, row = TEXTS[compare.field.name]
    small, bound = func.mmsearch_lower(text, type_=String), literal(compare.value, String())
    fits = small == bound
    if compare.operator is Operator.LIKE:
        fits = func.mmsearch_like(bound, small, type_=Boolean)
    owners = select(owner).where(fits)
    if compare.field.name == "caption":
        owners = owners.where(parts.c.content_id == captions.c.content_id)
    return row.in_(owners.correlate(None))


def _near(near: Near) -> Any:
    """Within a circle. Most places are too far north or south, and need no sine to tell."""
    north, margin = contents.c.latitude, near.kilometres / _DEGREE
    distance = func.mmsearch_distance(
        north, contents.c.longitude, near.latitude, near.longitude, type_=Float
    )
    return and_(
        north >= near.latitude - margin,
        north <= near.latitude + margin,
        distance <= near.kilometres,
    )


def _taken(operator: Operator, date: Date) -> Any:
    """A date on the clock where it was taken; of a file that does not say, on the clock here."""
    there = _within(contents.c.taken, operator, *date.span(UTC))
    here = _within(files.c.mtime_ns, operator, *date.span())
    return case((contents.c.taken.is_(None), here), else_=there)


def _within(column: Any, operator: Operator, start: int, end: int) -> Any:
    """A moment compared with a span: [start, end)."""
    match operator:
        case Operator.EQUAL:
            return and_(column >= start, column < end)
        case Operator.DIFFERENT:
            return or_(column < start, column >= end)
        case Operator.LESS:
            return column < start
        case Operator.AT_MOST:
            return column < end
        case Operator.MORE:
            return column >= end
        case _:
            return column >= start
