"""Every configuration key with what it may be, from the configuration classes: for error messages and docs/configuration.md."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..envs.config import MathConfig
from ..trainers.algorithms.grpo import GRPO
from ..trainers.config import Config

KINDS = {  # type -> one of it, several of it
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
}
BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "min_length": "(at least {})", "pattern": "matching {}"}


def keys(
    model: type[BaseModel] = Config, prefix: str = "", chosen: Collection[type[BaseModel]] = (MathConfig, GRPO)
) -> Iterator[tuple[str, FieldInfo]]:
    """Each dotted key with its field, sections before what is in them; of sections of several kinds those of the kind chosen."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        sections = _sections(field.annotation)
        for section in [section for section in sections if section in chosen] or sections:
            yield from keys(section, f"{prefix}{name}.", chosen)


def allowed(field: FieldInfo) -> str:
    """What the field may hold, in words: `a finite number > 0 or null`."""
    members = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    if _sections(field.annotation):
        return "a mapping of keys"
    kinds = " or ".join(dict.fromkeys(_kind(member) for member in members if member is not NoneType))
    return _bounded(kinds, field.metadata) + (" or null" if NoneType in members else "")


def main() -> None:
    """Print docs/configuration.md."""
    print("# Configuration\n\nWritten by `make docs` from the configuration classes of the packages; a test compares them.")
    print("A recipe is a YAML file of these keys, all of them optional. `SECTION.KEY=VALUE` on the command line overrides one.")
    print(
        "What an algorithm needs in a recipe is said there once, as overrides: `algorithms: {gigpo: [env.max_turns=2]}`. They are applied"
    )
    print("where the recipe or the command line names that algorithm. In the recipe's `name`, `{algorithm}` stands for the algorithm's.")
    _print_section(Config, "")


def _print_section(model: type[BaseModel], prefix: str) -> None:
    print(f"\n## {prefix.rstrip('.') or 'top level'}\n\n{_linked(' '.join((model.__doc__ or '').split()))}\n")
    print("| key | may be | default | meaning |\n| --- | --- | --- | --- |")
    inside = {name: _sections(field.annotation) for name, field in model.model_fields.items()}
    for name, field in model.model_fields.items():
        if not inside[name] or field.description:
            default = "" if field.is_required() else f"`{json.dumps(_default(field))}`"
            cells = [f"`{prefix}{name}`", allowed(field), default, _linked(field.description or "")]
            print("|", " | ".join(cell.replace("|", "\\|") for cell in cells), "|")
    for name, sections in inside.items():
        for section in sections:
            if list(section.model_fields) != ["name"]:  # an algorithm without keys of its own
                _print_section(section, f"{prefix}{name}.")


def _linked(text: str) -> str:
    """A description with links to the pages that it names."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)


def _default(field: FieldInfo) -> Any:
    """As it is on a machine without a GPU."""
    default = field.get_default(call_default_factory=True, validated_data={"device": "cpu"})
    return default.model_dump(mode="json") if isinstance(default, BaseModel) else default


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The configuration classes that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for member in get_args(annotation) for section in _sections(member)]


def _kind(annotation: Any, several: bool = False) -> str:
    members: tuple[Any, ...] = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _bounded(_kind(members[0], several), members[1].metadata)
    if get_origin(annotation) is Literal:
        return str(members[0]) if len(members) == 1 else f"one of {', '.join(map(str, members))}"
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_kind(member, several) for member in members)
    if get_origin(annotation) is list:
        return f"a list of {_kind(members[0], several=True)}"
    if get_origin(annotation) is dict:
        return f"a mapping of {_kind(members[0], several=True)} to {_kind(members[1], several=True)}"
    return "a mapping of keys" if _sections(annotation) else KINDS.get(annotation, ("any value", "any values"))[several]


def _bounded(kind: str, metadata: list[Any]) -> str:
    bounds = [text.format(value) for item in metadata for name, text in BOUNDS.items() if (value := getattr(item, name, None)) is not None]
    return " ".join([kind, " and ".join(bounds)]).strip()


if __name__ == "__main__":
    main()
