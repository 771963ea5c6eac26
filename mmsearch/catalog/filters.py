"""Filters as SQL: a tree becomes an expression over the tables.

No character of a filter gets into the SQL: columns come from `COLUMNS`, operators from
`_OPERATORS`, and every value is a bound parameter. What only SQLite needs is in functions.py;
a database without mmsearch_like and mmsearch_extension would have them made by a migration.
"""

from __future__ import annotations

import operator
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
)

from mmsearch.catalog.tables import contents, files, folders, items
from mmsearch.filters import And, Compare, Date, Field, Filter, Kind, Not, Operator, Or

_SECOND = 10**9  # nanoseconds
_SLASH = case((folders.c.path == b"/", b""), else_=b"/")
_PATH = cast(folders.c.path.op("||")(_SLASH).op("||")(files.c.name), LargeBinary)

# A field's expression, over files joined with their folders, contents and items. Dates are
# nanoseconds since 1970.
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
    "size": files.c.size,
    "modified": files.c.mtime_ns,
    "added": cast(files.c.added_at, BigInteger) * _SECOND,
}
_TYPES: dict[Kind, Any] = {Kind.WORD: String(), Kind.PATH: LargeBinary()}  # numbers: their own
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
        case Compare():
            return _comparison(filter)


def _comparison(compare: Compare) -> Any:
    column, value = COLUMNS[compare.field.name], compare.value
    if isinstance(value, Field):
        return _OPERATORS[compare.operator](column, COLUMNS[value.name])
    if isinstance(value, Date):
        return _within(column, compare.operator, *value.span())
    bound = literal(value, _TYPES.get(compare.field.kind))
    if compare.operator is Operator.LIKE:
        return func.mmsearch_like(bound, column, type_=Boolean)
    return _OPERATORS[compare.operator](column, bound)


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
