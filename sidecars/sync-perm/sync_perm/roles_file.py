"""
Parses the roles file into roles, or into the list of its mistakes, each with its line; pure.

The schema is docs/reference/roles.schema.json; rules that a schema cannot express are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args

import yaml

from sidecar_runtime.errors import printable
from sync_perm.compare import DEFAULT_ROLES, Kinds, Permission

T = TypeVar("T")
By = Literal["id", "tag", "owner", "folder"]
WAYS: tuple[By, ...] = get_args(By)

# ab_role.name and dag.dag_id, in every Airflow from 2.7 to 3.4.
MAX_NAME = 64
MAX_ID = 250
# Replaces the key in mistakes that concern the whole file.
WHOLE = "(file)"
TEXT = "tag:yaml.org,2002:str"
_PERMISSION = re.compile(r"(\w+) on (\S.*)|(\S.*)\.(\w+)")
# The wheels contain the C loader, whose depth is limited; a build without it is only slower.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mistake(NamedTuple):
    """
    One mistake in the file: the line from 1, the path of keys, and what is allowed.
    """

    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.line}: {self.key}: {self.problem}"


class Where(NamedTuple):
    """
    A place in the file.
    """

    line: int
    key: str

    def mistake(self, problem: str) -> Mistake:
        return Mistake(self.line, printable(self.key), printable(problem))


@dataclass(frozen=True, slots=True)
class Selection:
    """
    A selection of DAGs, and the permissions on them.

    Args:
        permissions: Pairs of a resource kind and an action, such as ``DAGs`` and ``can_read``.
    """

    by: By
    value: str
    permissions: frozenset[tuple[str, str]]
    where: Where


@dataclass(frozen=True, slots=True)
class Role:
    """
    One role in the file.

    Args:
        bases: The roles whose permissions and selections it inherits.
    """

    where: Where
    bases: Mapping[str, Where]
    permissions: Mapping[Permission, Where]
    selections: tuple[Selection, ...]


class Document(NamedTuple):
    """
    The readable part of the file; with any mistake, the whole file is ignored.
    """

    roles: Mapping[str, Role]
    mistakes: tuple[Mistake, ...] = ()


def parse(data: bytes, kinds: Kinds) -> Document:
    """
    Parse the file.

    Args:
        kinds: The kinds of DAG permissions of this Airflow.
    """
    try:
        root = yaml.compose(data.decode(), _LOADER)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Document({}, (Where(line, WHOLE).mistake("is not UTF-8"),))
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or getattr(error, "reason", "is nested too deep")
        where = Where(mark.line + 1 if mark else 1, WHOLE)
        return Document({}, (where.mistake(f"is not YAML: {said}"),))
    reading = _Reading(kinds)
    roles = reading.roles(root)
    reading.check_bases(roles)
    return Document(roles, tuple(sorted(reading.mistakes)))


class _Reading:
    """
    Walks the YAML nodes, which know their lines, and collects mistakes.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self.mistakes: list[Mistake] = []

    def roles(self, root: yaml.Node | None) -> dict[str, Role]:
        if root is None:
            self._refuse(Where(1, WHOLE), "is empty; write `roles: {}` for no roles")
            return {}
        found = self._mapping(root, WHOLE, ("roles",), required=("roles",))
        roles = self._mapping(found["roles"], "roles") if "roles" in found else {}
        return {name: self._role(name, node) for name, node in roles.items()}

    def check_bases(self, roles: Mapping[str, Role]) -> None:
        """
        Refuse unknown bases, and roles that inherit from themselves.
        """
        known = [*roles, *DEFAULT_ROLES]
        for name, role in roles.items():
            for base, where in role.bases.items():
                if base not in known:
                    what = "is neither a role in this file nor one of Airflow's own"
                    self._refuse(where, f"{base!r} {what}")
                elif name in lineage(base, roles):
                    self._refuse(where, f"is circular: {base!r} inherits from {name!r}")

    def _role(self, name: str, node: yaml.Node) -> Role:
        key = f"roles.{name}"
        where = Where(_line(node), key)
        if name != name.strip() or not 0 < len(name) <= MAX_NAME:
            text = f"a role name has 1 to {MAX_NAME} characters and no blanks at its ends"
            self._refuse(where, text)
        for own in DEFAULT_ROLES:
            if name.casefold() == own.casefold():
                text = f"{own} is one of Airflow's own roles, which the file cannot change"
                self._refuse(where, f"{text}; write another with `from: [{own}]`")
        found = self._mapping(node, key, ("from", "permissions", "dags"))
        selections = [self._selection(item, at) for item, at in self._list(found, "dags", key)]
        return Role(
            where,
            self._texts(found, "from", key, str),
            self._texts(found, "permissions", key, self._permission),
            tuple(selection for selection in selections if selection),
        )

    def _selection(self, node: yaml.Node, key: str) -> Selection | None:
        where, before = Where(_line(node), key), len(self.mistakes)
        found = self._mapping(node, key, (*WAYS, "permissions"), required=("permissions",))
        given = [by for by in WAYS if by in found]
        if len(given) != 1 and isinstance(node, yaml.MappingNode):
            self._refuse(where, f"must have one of {', '.join(WAYS)}, not {len(given)}")
        permissions = self._texts(found, "permissions", key, self._dag_permission)
        reads = {"folder": check_glob}
        values = [self._read(found[by], f"{key}.{by}", reads.get(by, _check_id)) for by in given]
        if len(self.mistakes) > before:
            return None
        return Selection(given[0], values[0] or "", frozenset(permissions), where)

    def _permission(self, text: str) -> Permission:
        action, resource = _split(text)
        for kind in self._kinds.values():
            if resource.startswith(kind.prefix):
                name = resource.removeprefix(kind.prefix)
                raise ValueError(f"is for one DAG: write it under `dags`, with `id: {name}`")
        return action, resource

    def _dag_permission(self, text: str) -> tuple[str, str]:
        action, kind = (text, "DAGs") if re.fullmatch(r"\w+", text) else _split(text)
        if kind not in self._kinds:
            raise ValueError(f"must be on one of {', '.join(sorted(self._kinds))}")
        actions = sorted(self._kinds[kind].actions)
        if action not in actions:
            raise ValueError(f"is not an action on {kind}; allowed are {', '.join(actions)}")
        return kind, action

    def _mapping(
        self,
        node: yaml.Node,
        key: str,
        allowed: tuple[str, ...] = (),
        required: tuple[str, ...] = (),
    ) -> dict[str, yaml.Node]:
        """
        Return a mapping's values by key; without `allowed`, any key is accepted.
        """
        if not isinstance(node, yaml.MappingNode):
            wanted = f"with {', '.join(allowed)}" if allowed else "of roles"
            self._refuse(Where(_line(node), key), f"is not a mapping {wanted}")
            return {}
        found: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            name = self._read(name_node, key, str)
            where = Where(_line(name_node), f"{name}" if key == WHOLE else f"{key}.{name}")
            if name in found:
                self._refuse(where, "occurs twice")
            elif name is not None and allowed and name not in allowed:
                self._refuse(where, f"is not a valid key; allowed are {', '.join(allowed)}")
            elif name is not None:
                found[name] = value
        for name in required:
            if name not in found:
                self._refuse(Where(_line(node), key), f"is missing the key `{name}`")
        return found

    def _list(
        self, found: Mapping[str, yaml.Node], name: str, key: str
    ) -> Iterator[tuple[yaml.Node, str]]:
        """
        Yield the items of a list, each with its path of keys.
        """
        node, key = found.get(name), f"{key}.{name}"
        if isinstance(node, yaml.SequenceNode):
            yield from ((item, f"{key}[{number}]") for number, item in enumerate(node.value))
        elif node is not None:
            self._refuse(Where(_line(node), key), "is not a list")

    def _texts(
        self, found: Mapping[str, yaml.Node], name: str, key: str, read: Callable[[str], T]
    ) -> dict[T, Where]:
        """
        Return the valid texts of a list, each with its place.
        """
        return {
            value: Where(_line(item), at)
            for item, at in self._list(found, name, key)
            if (value := self._read(item, at, read))
        }

    def _read(self, node: yaml.Node, key: str, read: Callable[[str], T]) -> T | None:
        """
        Return a parsed text; None if it is invalid, which is recorded.
        """
        if not (isinstance(node, yaml.ScalarNode) and node.tag == TEXT):
            self._refuse(Where(_line(node), key), "is not text; put it in quotes")
            return None
        try:
            return read(str(node.value))
        except ValueError as error:
            self._refuse(Where(_line(node), key), f"{node.value!r} {error}")
            return None

    def _refuse(self, where: Where, problem: str) -> None:
        self.mistakes.append(where.mistake(problem))


def lineage(name: str, roles: Mapping[str, Role]) -> Iterable[str]:
    """
    Return a role and all roles that it inherits from, each once.
    """
    found: dict[str, None] = {}
    todo = [name]
    while todo:
        one = todo.pop()
        if one not in found:
            found[one] = None
            todo += roles[one].bases if one in roles else ()
    return found


def check_glob(glob: str) -> str:
    """
    Return a glob.

    Raises:
        ValueError: The glob would never match, or match something unexpected.
    """
    segments = glob.split("/")
    if any("**" in segment and segment != "**" for segment in segments):
        raise ValueError("has a ** that is not a whole path segment")
    if any(segment in ("", ".", "..") for segment in segments):
        text = "has a segment that is empty, . or ..; write it below the DAG folder, as team-a/**"
        raise ValueError(text)
    # Airflow stores the path within an archive, team-a/pack.zip/dag.py, so it is a folder too.
    if not re.search(r"[*?]|\.py$", segments[-1]) or segments[-1].endswith(".zip"):
        raise ValueError(f"names a folder; to select the DAGs in it, write {glob}/**")
    return glob


def matcher(glob: str) -> Callable[[str], bool]:
    """
    Return a function that reports whether a path matches a glob.

    ``*`` matches any text without ``/``, ``?`` one such character, and ``**`` any number of
    folders; at the end, ``**`` matches everything below.
    """
    *above, last = glob.split("/")
    pattern = "".join("(?:[^/]+/)*" if part == "**" else f"{_one(part)}/" for part in above)
    match = re.compile(pattern + (".+" if last == "**" else _one(last)), re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _one(segment: str) -> str:
    marks = {"*": "[^/]*", "?": "[^/]"}
    return "".join(marks.get(letter, re.escape(letter)) for letter in segment)


def _split(text: str) -> tuple[str, str]:
    """
    Return the action and the resource of a permission.

    Raises:
        ValueError: The text has neither of the two forms that Airflow uses.
    """
    if (match := _PERMISSION.fullmatch(text)) is None:
        raise ValueError("is not a permission such as `can_read on DAGs` or `DAGs.can_read`")
    return match[1] or match[4], match[2] or match[3]


def _check_id(text: str) -> str:
    if not 0 < len(text) <= MAX_ID:
        raise ValueError(f"must have 1 to {MAX_ID} characters")
    return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
