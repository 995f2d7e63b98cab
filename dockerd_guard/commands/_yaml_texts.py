"""The alternatives of a YAML file: what it is without its tags, if it is or may be a template, and as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dockerd_guard.observe import carriers, templates
from dockerd_guard.observe.yaml_nodes import UnreadableYaml


class YamlTexts(NamedTuple):
    """What each alternative carries and defines, and the lines of what is not known, with the reasons."""

    alternatives: list[carriers.Read]
    unknown: list[tuple[int, str]]


def read(name: str, text: str, variables: Mapping[str, str]) -> YamlTexts:
    """Read a file. Without the suffix of a template it is read as it is, too: Compose knows no tags."""
    rendered = templates.of_yaml(name, text)
    texts = dict.fromkeys(each.text for each in rendered)
    is_template = bool(texts) and templates.is_certain(name)
    found: list[carriers.Read] = []
    known: set[object] = set()
    unknown: list[tuple[int, str]] = []
    for each in texts if is_template else [text, *texts]:
        try:
            content = carriers.read(name, each, variables)
        except UnreadableYaml as error:
            if each is not text or not texts:
                unknown.append((error.line, f"not read: {error}"))
            continue
        files = [(carried.path, carried.first_line, carried.content) for carried in content.files]
        found.append(content._replace(files=[
            carried for carried, key in zip(content.files, files, strict=True) if key not in known]))
        known.update(files)
        if each is text and len(texts) < 2:
            # Tags in a file that is read with them are comments, or text.
            return YamlTexts(found, [])
    unknown += [(each.line, f"the value of {each.text} is not known") for result in rendered
                for each in result.expressions]
    return YamlTexts(found, list(dict.fromkeys(unknown)))
