"""
Parses the roles file into roles, or into the list of its mistakes; pure.

The schema is docs/reference/roles.schema.json; rules that a schema cannot express are checked here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import yaml

from sidecar_runtime.printable import printable
from sync_perm.database.tables import Permission
from sync_perm.difference import DEFAULT_ROLES, Resource
from sync_perm.role_file.document import (
    WHOLE,
    By,
    Document,
    Mistake,
    Role,
    Selection,
    Where,
)
from sync_perm.role_file.folder import check_glob
from sync_perm.role_file.guess import guess

T = TypeVar("T")

# ab_role.name and dag.dag_id, in every Airflow from 2.7 to 3.3.
MAX_NAME = 64
MAX_ID = 250
# Anchors let a short text repeat the same list many times.
MAX_VALUES = 100_000

_ROLE_KEYS = ("from", "permissions", "dags")
_DAG_KEYS: tuple[By, ...] = ("id", "tag", "folder")
_ON = re.compile(r"(\w+) on (\S.*)")
_DOTTED = re.compile(r"(\S.*)\.(\w+)")

# The wheels contain the C loader, whose depth is limited; a build without it is only slower.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(data: bytes, kinds: Mapping[str, Resource]) -> Document:
    """
    Parse the file.

    Args:
        kinds: The kinds of DAG permissions of this Airflow.
    """
    try:
        root = yaml.compose(data.decode(), _LOADER)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Document(mistakes=(Mistake(Where(line, WHOLE), "is not UTF-8"),))
    except (yaml.YAMLError, RecursionError) as error:
        return Document(mistakes=(_syntax(error),))
    reading = _Reading(kinds)
    roles = reading.roles(root) if root else reading.empty()
    reading.check_bases(roles)
    return Document(roles, tuple(sorted(reading.mistakes)))


def _syntax(error: Exception) -> Mistake:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "is nested too deep"
    return Mistake(Where(mark.line + 1 if mark else 1, WHOLE), f"is not YAML: {said}")


class _Overflow(Exception):
    """
    Anchors expand the file to too many values.
    """


class _Reading:
    """
    Walks the YAML nodes, which know their lines, and collects mistakes.
    """

    def __init__(self, kinds: Mapping[str, Resource]) -> None:
        self._kinds = kinds
        self._left = MAX_VALUES
        self.mistakes: list[Mistake] = []
        self._names: dict[str, str] = {}

    def empty(self) -> dict[str, Role]:
        self._refuse(Where(1, WHOLE), "is empty; write `roles: {}` for no roles")
        return {}

    def roles(self, root: yaml.Node) -> dict[str, Role]:
        try:
            found = self._mapping(root, WHOLE, ("roles",))
            if "roles" not in found:
                if isinstance(root, yaml.MappingNode):
                    self._refuse(Where(_line(root), WHOLE), "is missing the key `roles`")
                return {}
            roles = self._mapping(found["roles"], "roles")
            return {name: self._role(name, node) for name, node in roles.items()}
        except _Overflow:
            text = f"has more than {MAX_VALUES:,} values, counting each repetition of an anchor"
            self._refuse(Where(1, WHOLE), text)
            return {}

    def check_bases(self, roles: Mapping[str, Role]) -> None:
        """
        Refuse unknown bases, and each circular reference once.
        """
        known = [*roles, *DEFAULT_ROLES]
        for role in roles.values():
            for base, where in role.bases.items():
                if base not in known:
                    what = "is neither a role in this file nor one of Airflow's own"
                    self._refuse(where, f"{base!r} {what}{guess(base, known)}")
        done: set[str] = set()
        # The bases that are still to visit, by role; those of None are all roles.
        path: dict[str | None, Iterator[str]] = {None: iter(roles)}
        while path:
            last, left = next(reversed(path.items()))
            name = next(left, None)
            if name is None:
                done.add(str(last))
                del path[last]
            elif name in path:
                names = list(path)
                circle = [*names[names.index(name) :], name]
                where = roles[str(last)].bases[name]
                self._refuse(where, f"is circular: {' from '.join(map(repr, circle))}")
            elif name in roles and name not in done:
                path[name] = iter(roles[name].bases)

    def _role(self, name: str, node: yaml.Node) -> Role:
        key = f"roles.{name}"
        where = Where(_line(node), key)
        self._check_name(name, where)
        found = self._mapping(node, key, _ROLE_KEYS)
        bases = {
            base: Where(_line(item), at)
            for item, at in self._list(found, "from", key)
            if (base := self._text(item, at))
        }
        permissions = {
            permission: Where(_line(item), at)
            for item, at in self._list(found, "permissions", key)
            if (permission := self._read(item, at, self._permission))
        }
        selections = [self._selection(item, at) for item, at in self._list(found, "dags", key)]
        return Role(name, where, bases, permissions, tuple(s for s in selections if s))

    def _check_name(self, name: str, where: Where) -> None:
        own = {role.casefold(): role for role in DEFAULT_ROLES}
        if name != name.strip() or not 0 < len(name) <= MAX_NAME:
            text = f"a role name has 1 to {MAX_NAME} characters and no blanks at its ends"
            self._refuse(where, text)
        elif role := own.get(name.casefold()):
            text = f"{role} is one of Airflow's own roles, which the file cannot change"
            self._refuse(where, f"{text}; write another with `from: [{role}]`")
        elif (other := self._names.setdefault(_fold(name), name)) != name:
            self._refuse(where, f"some databases treat this name as {other!r}; rename one of them")

    def _selection(self, node: yaml.Node, key: str) -> Selection | None:
        where = Where(_line(node), key)
        before = len(self.mistakes)
        found = self._mapping(node, key, (*_DAG_KEYS, "permissions"))
        given = [by for by in _DAG_KEYS if by in found]
        if isinstance(node, yaml.MappingNode) and len(given) != 1:
            self._refuse(where, f"must have one of {', '.join(_DAG_KEYS)}, not {len(given)}")
        if isinstance(node, yaml.MappingNode) and "permissions" not in found:
            self._refuse(where, "is missing the key `permissions`")
        permissions = frozenset(
            permission
            for item, at in self._list(found, "permissions", key)
            if (permission := self._read(item, at, self._dag_permission))
        )
        values = {
            by: self._read(found[by], f"{key}.{by}", _check_folder if by == "folder" else _check_id)
            for by in given
        }
        if len(self.mistakes) > before:
            return None
        ((by, value),) = values.items()
        return Selection(by, value or "", permissions, where)

    def _permission(self, text: str) -> Permission:
        action, resource = _split(text)
        for kind in self._kinds.values():
            if resource.startswith(kind.prefix):
                name = resource.removeprefix(kind.prefix)
                raise ValueError(f"is for one DAG: write it under `dags`, with `id: {name}`")
        return action, resource

    def _dag_permission(self, text: str) -> tuple[str, str]:
        kind, action = "DAGs", text
        if not re.fullmatch(r"\w+", text):
            action, kind = _split(text)
        if kind not in self._kinds:
            raise ValueError(f"must be on one of {', '.join(sorted(self._kinds))}")
        actions = sorted(self._kinds[kind].actions)
        if action not in actions:
            raise ValueError(f"is not an action on {kind}; allowed are {', '.join(actions)}")
        return kind, action

    def _mapping(
        self, node: yaml.Node, key: str, allowed: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """
        Return a mapping's values by key; without `allowed`, any key is accepted.
        """
        if not isinstance(node, yaml.MappingNode):
            wanted = f"with {', '.join(allowed)}" if allowed else "of roles"
            self._refuse(Where(_line(node), key), f"is {_kind(node)}, not a mapping {wanted}")
            return {}
        found: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            self._count()
            name = self._text(name_node, key)
            if name is None:
                continue
            where = Where(_line(name_node), name if key == WHOLE else f"{key}.{name}")
            if name in found:
                self._refuse(where, "occurs twice")
            elif allowed and name not in allowed:
                text = f"is not a valid key; allowed are {', '.join(allowed)}"
                self._refuse(where, f"{text}{guess(name, allowed)}")
            else:
                found[name] = value
        return found

    def _list(
        self, found: Mapping[str, yaml.Node], name: str, key: str
    ) -> Iterator[tuple[yaml.Node, str]]:
        """
        Yield the items of a list, each with its path of keys.
        """
        node, key = found.get(name), f"{key}.{name}"
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._count()
                yield item, f"{key}[{number}]"
        elif node is not None:
            self._refuse(Where(_line(node), key), f"is {_kind(node)}, not a list")

    def _read(self, node: yaml.Node, key: str, parse_text: Callable[[str], T]) -> T | None:
        """
        Return a parsed text; None if it is invalid, which is recorded.
        """
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return parse_text(text)
        except ValueError as error:
            self._refuse(Where(_line(node), key), f"{text!r} {error}")
            return None

    def _text(self, node: yaml.Node, key: str) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        in_quotes = "; put it in quotes" if isinstance(node, yaml.ScalarNode) else ""
        self._refuse(Where(_line(node), key), f"is {_kind(node)}, not text{in_quotes}")
        return None

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Overflow

    def _refuse(self, where: Where, problem: str) -> None:
        self.mistakes.append(Mistake(Where(where.line, printable(where.key)), printable(problem)))


def _split(text: str) -> tuple[str, str]:
    """
    Return the action and the resource of a permission.

    Raises:
        ValueError: The text has neither of the two forms that Airflow uses.
    """
    if match := _ON.fullmatch(text):
        return match[1], match[2]
    if match := _DOTTED.fullmatch(text):
        return match[2], match[1]
    raise ValueError("is not a permission such as `can_read on DAGs` or `DAGs.can_read`")


def _fold(name: str) -> str:
    """
    Return a name without case and accents, which the collations of MySQL ignore.
    """
    letters = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _check_id(text: str) -> str:
    if not 0 < len(text) <= MAX_ID:
        raise ValueError(f"must have 1 to {MAX_ID} characters")
    return text


def _check_folder(text: str) -> str:
    check_glob(text)
    return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a mapping"
        case yaml.SequenceNode():
            return "a list"
        case yaml.ScalarNode(tag="tag:yaml.org,2002:null"):
            return "empty"
        case yaml.ScalarNode(tag="tag:yaml.org,2002:str"):
            return "text"
    return f"the {node.tag.rpartition(':')[2]} {node.value}"
