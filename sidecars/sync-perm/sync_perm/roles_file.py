"""
Roles as code: the roles file, its mistakes with their lines, and the rows that it
wants.

The schema is docs/reference/roles.schema.json; rules that a schema cannot express are
checked here.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import yaml

from sidecar_runtime.errors import SidecarError, printable
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import read_file
from sync_perm.compare import (
    ADMIN,
    DEFAULT_ROLES,
    PREFIXES,
    RESOURCES,
    WEBSITE,
    Difference,
    Grants,
    Item,
    Permission,
    Place,
    Tables,
)
from sync_perm.reasons import failure

MOST_BYTES = 1 << 20
"""Of the file: as much as a ConfigMap can have."""
WAYS = ("id", "tag", "owner", "folder")
Defined = Grants
"""Role → the permissions that this Airflow defines for it."""

# ab_role.name, in every Airflow from 2.7 to 3.4.
MAX_NAME = 64
NAMED_MISTAKES = 5
NAMED_DAGS = 5
# Replaces the key in mistakes that concern the whole file.
WHOLE = "(file)"
_PERMISSION = re.compile(r"(\w+) on (\S.*)|(\S.*)\.(\w+)")
# Deeper than any roles file. To compose what is nested takes stack, of which the C
# loader checks nothing, and the square of its depth.
MAX_DEPTH = 20
TANGLED = (
    "has an alias, or is nested more than 20 deep; write out what it stands "
    "for, or let roles share it with `from`"
)

log = get_logger("roles_file")


# --- the document


class Mistake(NamedTuple):
    """
    One mistake in the file: the line from 1, the path of keys, and what is allowed.
    """

    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.line}: {self.key}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Where:
    """
    A place in the file, where mistakes are recorded.
    """

    line: int
    key: str
    mistakes: list[Mistake] = field(default_factory=list, compare=False, repr=False)

    def refuse(self, problem: str) -> None:
        self.mistakes.append(
            Mistake(self.line, printable(self.key or WHOLE), printable(problem))
        )

    def below(self, node: yaml.Node, key: str) -> "Where":
        """
        Return the place of a node below this one.
        """
        path = f"{self.key}{key}".removeprefix(".")
        return Where(node.start_mark.line + 1, path, self.mistakes)


@dataclass(frozen=True, slots=True)
class Selection:
    """
    A selection of DAGs, and the permissions on them.

    Args:
        permissions: Pairs of a resource kind and an action, such as ``DAGs`` and
            ``can_read``.
    """

    by: str
    value: str
    permissions: frozenset[Permission]
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


class Read(NamedTuple):
    """
    What was read at a place: a mapping or list of such, or a parsed text; None if it is
    wrong.
    """

    value: Any
    where: Where


def read(node: yaml.Node, shape: Any, where: Where) -> Read:
    """
    Read a node; what does not have the shape is recorded and left out.

    Args:
        shape: For a mapping, the shapes of its values by key, or that of all as ``*``;
            for a list, a list with that of its items; for a text, its parser, which
            raises a ValueError.
    """
    match shape, node:
        case dict(), yaml.MappingNode():
            return Read(_fields(node, shape, where), where)
        case dict(), _:
            what = "of roles" if "*" in shape else f"with {', '.join(shape)}"
            where.refuse(f"is not a mapping {what}")
        case [inner], yaml.SequenceNode():
            found = [
                read(item, inner, where.below(item, f"[{n}]"))
                for n, item in enumerate(node.value)
            ]
            return Read([one for one in found if one.value is not None], where)
        case list(), _:
            where.refuse("is not a list")
        case _, yaml.ScalarNode(tag="tag:yaml.org,2002:str"):
            try:
                return Read(shape(node.value), where)
            except ValueError as error:
                where.refuse(f"{node.value!r} {error}")
        case _:
            where.refuse("is not text; put it in quotes")
    return Read(None, where)


def _fields(
    node: yaml.MappingNode, shape: Mapping[str, Any], where: Where
) -> dict[str, Read]:
    found: dict[str, Read] = {}
    for key, value in node.value:
        name = read(key, str, where.below(key, "")).value
        if name is None:
            continue
        inner = shape.get(name, shape.get("*"))
        place = where.below(key, f".{name}")
        if name in found:
            place.refuse("occurs twice")
        elif inner is None:
            place.refuse(f"is not a valid key; allowed are {', '.join(shape)}")
        else:
            found[name] = read(value, inner, where.below(value, f".{name}"))
    return found


def parse(data: bytes) -> Document:
    """
    Parse the file.
    """
    whole = Where(1, "")
    roles: dict[str, Role] = {}
    try:
        # A few lines of aliases of aliases stand for more than any memory holds.
        depth = 0
        for event in yaml.parse(data, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise yaml.MarkedYAMLError(None, None, TANGLED, event.start_mark)  # type: ignore[arg-type]
        root = yaml.compose(data, yaml.CSafeLoader) or yaml.ScalarNode("", "")
        found = read(root, SHAPE, whole).value or {}
        roles = {
            name: _role(name, *one)
            for name, one in (found.get("roles", Read(None, whole)).value or {}).items()
        }
        for role in roles.values():
            for base in role.bases.keys() - roles.keys() - set(DEFAULT_ROLES):
                role.bases[base].refuse(
                    f"{base!r} is neither a role in this file nor one of Airflow's own"
                )
    except yaml.reader.ReaderError as error:
        line = data.count(b"\n", 0, error.position) + 1
        replace(whole, line=line).refuse(f"is not plain YAML: {error.reason}")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        replace(whole, line=line).refuse(f"is not plain YAML: {error.problem}")
    return Document(roles, tuple(sorted(whole.mistakes)))


def _role(name: str, found: Mapping[str, Read] | None, where: Where) -> Role:
    if name != name.strip() or not 0 < len(name) <= MAX_NAME or "\0" in name:
        where.refuse(
            "a role name has 1 to 64 characters, none of them NUL, and no "
            "blanks at its ends"
        )
    for own in DEFAULT_ROLES:
        if name.casefold() == own.casefold():
            where.refuse(
                f"{own} is one of Airflow's own roles, which the file cannot change; "
                f"write another with `from: [{own}]`"
            )
    parts = {key: one.value or [] for key, one in (found or {}).items()}
    bases, permissions = (dict(parts.get(key, [])) for key in ("from", "permissions"))
    return Role(
        where,
        bases,
        permissions,
        tuple(filter(None, (_selection(*one) for one in parts.get("dags", [])))),
    )


def _selection(found: Mapping[str, Read], where: Where) -> Selection | None:
    given = [by for by in WAYS if by in found]
    if len(given) != 1 or "permissions" not in found:
        where.refuse("must have permissions and exactly one of id, tag, owner, folder")
    elif None not in (one.value for one in found.values()):
        return Selection(
            given[0],
            found[given[0]].value,
            frozenset(one.value for one in found["permissions"].value),
            where,
        )
    return None


def _on_others(text: str) -> Permission:
    action, resource = _split(text)
    for kind in RESOURCES.values():
        if resource.startswith(kind.prefix):
            name = resource.removeprefix(kind.prefix)
            raise ValueError(
                f"is for one DAG: write it under `dags`, with `id: {name}`"
            )
    return action, resource


def _on_dags(text: str) -> Permission:
    action, kind = (text, "DAGs") if re.fullmatch(r"\w+", text) else _split(text)
    if kind not in RESOURCES:
        raise ValueError("must be on one of DAG Runs, DAGs")
    actions = sorted(RESOURCES[kind].actions)
    if action not in actions:
        raise ValueError(
            f"is not an action on {kind}; allowed are {', '.join(actions)}"
        )
    return kind, action


def _split(text: str) -> tuple[str, str]:
    """
    Return the action and the resource of a permission.

    Raises:
        ValueError: The text has neither of the two forms that Airflow uses.
    """
    match = _PERMISSION.fullmatch(text)
    if match is None:
        raise ValueError(
            "is not a permission such as `can_read on DAGs` or `DAGs.can_read`"
        )
    return match[1] or match[4], match[2] or match[3]


def check_glob(glob: str) -> str:
    """
    Return a glob.

    Raises:
        ValueError: The glob would never match, or match something unexpected.
    """
    segments = glob.split("/")
    if any(one in ("", ".", "..") or ("**" in one and one != "**") for one in segments):
        raise ValueError(
            "has a segment that is empty, ., .. or has more than **; write it below the "
            "DAG folder, as team-a/**"
        )
    # Airflow stores the path within an archive, team-a/pack.zip/dag.py, so it is a
    # folder too.
    if not re.search(r"[*?]|\.py$", segments[-1]) or segments[-1].endswith(".zip"):
        raise ValueError(f"names a folder; to select the DAGs in it, write {glob}/**")
    return glob


def fits(glob: str, path: str) -> bool:
    """
    Whether a path matches a glob; an empty path, of a DAG outside of the folder,
    matches none.

    ``*`` matches any text without ``/``, ``?`` one such character, and ``**`` any
    number of folders; at the end, ``**`` matches everything below.

    It takes at most the length of the glob times that of the path: fnmatch's wildcards,
    too, never try another place.
    """
    names = path.split("/") if path else []
    segments = glob.split("/")
    if segments[-1] == "**":
        segments.append("*")
    # How many of the names the segments until here may stand for.
    ends = {0}
    for segment in segments:
        if segment == "**":
            ends = set(range(min(ends, default=len(names)), len(names)))
        else:
            pattern = segment.replace("[", "[[]")
            below = (n for n in ends if n < len(names))
            ends = {n + 1 for n in below if fnmatchcase(names[n], pattern)}
    return len(names) in ends


SELECTION: dict[str, Any] = {
    **dict.fromkeys(WAYS, str),
    "folder": check_glob,
    "permissions": [_on_dags],
}
ROLE = {"from": [str], "permissions": [_on_others], "dags": [SELECTION]}
SHAPE = {"roles": {"*": ROLE}}


def lineage(name: str, roles: Mapping[str, Role]) -> Iterable[str]:
    """
    Return a role and all roles that it inherits from, each once.
    """
    found = {name}
    queue = [name]
    for one in queue:  # which grows meanwhile
        bases = roles[one].bases if one in roles else ()
        # A difference of sets would walk all of what was found.
        queue += [base for base in bases if base not in found]
        found.update(bases)
    return queue


# --- the file, and what it wants of the tables


NOTHING = Difference(frozenset(), {}, 0)


@dataclass(slots=True)
class RoleFile:
    """
    The roles file, parsed again when it has changed; used by one cycle at a time.

    Attributes:
        document: Its content; without roles if it cannot be read.
        revision: A digest of its content; empty if it cannot be read.
        problem: What is wrong with it; None if it is valid.
        mistakes: All mistakes; an unreadable file has one.
    """

    path: str
    document: Document = field(default_factory=lambda: Document({}))
    revision: str = ""
    problem: SidecarError | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    said: object = None

    def refresh(self) -> None:
        """
        Read the file; record its mistakes instead of raising them.
        """
        before = self.revision
        self.revision = ""
        try:
            data = read_file(self.path, MOST_BYTES, follow=True)
            self.revision = hashlib.sha256(data).hexdigest()[:12]
            if self.revision != before:
                self.document = parse(data)
        except OSError as error:
            self.document = Document(
                {}, (Mistake(0, WHOLE, error.strerror or "is not a file"),)
            )

    def compare(self, tables: Tables, defined: Defined | None) -> Difference:
        """
        Return the rows that the file wants; none if it has mistakes, which are recorded
        and logged once.

        Args:
            defined: None if it is not known yet, and with it which permissions exist:
                then nothing is wanted, and the file itself has all mistakes.
        """
        found = list(self.document.mistakes)
        if defined is not None:
            found += _find_mistakes(self.document, tables)
        elif not found:  # and those of an earlier content are fixed
            self.said = self.problem = None
            self.mistakes = found
            return NOTHING
        self._take(sorted(found))
        return NOTHING if found else want(self.document, tables, defined or {})

    def _take(self, found: list[Mistake]) -> None:
        """
        Record the mistakes; without any, the file is valid.
        """
        if (self.revision, found) == self.said:
            return
        self.said = self.revision, found
        self.mistakes = found
        self.problem = None
        if not found:
            log.info(
                "roles_file_accepted",
                file=self.path,
                revision=self.revision,
                roles=len(self.document.roles),
            )
            return
        for line, key, problem in found:
            log.warning(
                "roles_file_refused", file=self.path, line=line, key=key, error=problem
            )
        texts = [f"{self.path}:{mistake}" for mistake in found[:NAMED_MISTAKES]]
        more = len(found) - len(texts)
        if more:
            texts.append(f"and {more} more")
        self.problem = failure("roles_file_invalid", "; ".join(texts))


def _find_mistakes(document: Document, tables: Tables) -> list[Mistake]:
    """
    Return the mistakes that only the database shows, once Airflow has written its
    permissions.
    """
    found: list[Mistake] = []
    # by the database's spelling
    names = {tables.spelled(role): role for role in DEFAULT_ROLES}
    for name, role in document.roles.items():
        other = names.setdefault(tables.spelled(name), name)
        if other != name:
            replace(role.where, mistakes=found).refuse(
                f"the database treats this name as {other}"
            )
        for one in role.permissions.keys() - tables.permissions:
            replace(role.permissions[one], mistakes=found).refuse(
                f"this Airflow has no permission {' on '.join(one)!r}"
            )
    return found


def want(document: Document, tables: Tables, defined: Defined) -> Difference:
    """
    Return the rows that a valid file wants; pure.
    """
    # Lists, because fifty sets of a thousand DAGs took 3 MiB (2026-11).
    chosen = {
        one: _select_dags(one, tables)
        for role in document.roles.values()
        for one in role.selections
    }

    def permissions(name: str) -> Iterator[Permission]:
        """
        Yield the permissions that a role must have.
        """
        for one in lineage(name, document.roles):
            role = document.roles.get(one)
            if role is None:  # Admin has all, which Airflow defines nowhere
                known = tables.grants if one == ADMIN else defined
                yield from (
                    given
                    for given in known.get(one, ())
                    if not given[1].startswith(PREFIXES)
                )
                continue
            yield from role.permissions
            for selection in role.selections:
                for kind, action in selection.permissions:
                    prefix = RESOURCES[kind].prefix
                    for dag_id in chosen[selection]:
                        if tables.dags[dag_id] is None:
                            yield action, prefix + dag_id

    items: set[Item] = set()
    size = 0
    asked: dict[str, set[Permission]] = {}
    for name in document.roles:
        role = tables.spelled(name)
        held = tables.grants.get(role)
        wanted = set(permissions(name))
        if held is None:
            items.add(Item("file_role", "", (role,)))
            wanted.add(WEBSITE)
        items |= {
            Item("file_grant", "", (role, *one))
            for one in wanted - (held or frozenset())
        }
        asked[role] = wanted
        size += len(wanted) + (held is None)
    notes = []
    for one, found in chosen.items():
        place = f"{one.where.key} (line {one.where.line})"
        if not found:
            notes.append(f"{place}: no DAG matches {one.by} {one.value}")
        ruled = [name for name in found if isinstance(tables.dags[name], dict)]
        if ruled:
            dags = ", ".join(ruled[:NAMED_DAGS])
            notes.append(f"{place}: the access_control of {len(ruled)} decides: {dags}")
    return Difference(frozenset(items), {}, size, tuple(notes), asked=asked)


def _select_dags(selection: Selection, tables: Tables) -> list[str]:
    """
    Return the DAGs that a selection includes.
    """
    value = selection.value

    def is_chosen(dag_id: str) -> bool:
        place = tables.places.get(dag_id, Place())
        match selection.by:
            case "folder":
                return fits(value, place.path)
            case "tag":
                return value in place.tags
            case "owner":
                return value in place.owners
        return value == dag_id

    return list(filter(is_chosen, tables.dags))
