"""JSON output. The shapes are contracts (schema 1): keys may be added, none is removed or changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dockerd_guard.observe.observation import LAYERS

if TYPE_CHECKING:
    from dockerd_guard.model.address import Binding
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.model.location import Location
    from dockerd_guard.observe.observation import Layer, Observation
    from dockerd_guard.report.lint_result import LintResult

SCHEMA = 1


def sockets(seen: Observation) -> dict[str, Any]:
    """The output of `sockets`. A layer that cannot be observed is null; a live host also has `others`."""
    known = {layer.name: _layer(layer) for layer in seen.layers}
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "dockerd_version": str(seen.configured.dockerd_version),
        "layers": {name: known.get(name) for name in LAYERS},
    }
    if len(known) > 1:
        value["others"] = [
            {"pid": process.pid, "unit": process.unit or None, "argv": list(process.argv),
             "bindings": [_binding(binding) for binding in bindings]}
            for process, bindings, *_ in seen.others]
    return value


def findings(found: Iterable[Finding]) -> dict[str, Any]:
    """The findings of `lint`. Location and `fix` are null if there is none."""
    return {"schema": SCHEMA, "findings": [finding_json(finding) for finding in found]}


def lint_result(result: LintResult) -> dict[str, Any]:
    """The output of `lint`. `error` is there if the answer is incomplete, `notes` if something was assumed."""
    value = findings(result.findings)
    if result.notes:
        value["notes"] = list(result.notes)
    if result.unanswered:
        value["error"] = "\n".join(result.unanswered)
    if result.ignored:
        value["ignored"] = [{**finding_json(finding), "reason": reason} for finding, reason in result.ignored]
    return value


def dump(value: dict[str, Any], *, root: str | None = None) -> str:
    """A JSON object: indented, or with its root on a single line."""
    if root is None:
        return _text(value, indent=2)
    return _text({"root": root, **value}, indent=None)


def _text(value: dict[str, Any], indent: int | None) -> str:
    text = json.dumps(value, indent=indent)
    # Invalid UTF-8 was decoded to lone surrogates, which JSON parsers refuse.
    if "\\udc" in text:
        text = json.dumps(_replaced(value), indent=indent)
    # GitHub's runner executes `##[command]` wherever a line of a log contains it.
    return text.replace("##", "#\\u0023")


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return [_replaced(item) for item in value] if isinstance(value, list) else value


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "starts": layer.starts,
        "refused_by": layer.refused_by,
        "reason": layer.reason,
        "argv": list(layer.argv),
        "hosts": list(layer.hosts),
        "bindings": [_binding(binding) for binding in layer.bindings],
    }


def _binding(binding: Binding) -> dict[str, Any]:
    file, line, column, _ = _place(binding.source)
    return {
        "address": binding.address, "scope": binding.scope, "tls": binding.tls, "via": binding.via,
        "file": file, "line": line, "column": column,
        **({"evidence": {"address": binding.evidence, "tls": binding.tls_evidence}} if binding.evidence else {}),
        **({"network_namespace": binding.namespace} if binding.namespace else {}),
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    file, line, column, end_column = _place(finding.location)
    return {
        "code": finding.code, "severity": finding.severity, "message": finding.message,
        "layer": finding.layer,
        "file": file, "line": line, "column": column, "end_column": end_column, "fix": finding.fix,
    }


def _place(location: Location | None) -> tuple[str | None, int | None, int | None, int | None]:
    if location is None or not location.line:
        return None, None, None, None
    return location
