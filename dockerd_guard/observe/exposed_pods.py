"""Pods of Kubernetes, and nodes of kind, that mount the API socket by a hostPath and are reachable."""

from __future__ import annotations

import re
from itertools import islice

from dockerd_guard.observe import container_definitions

MAX_MOUNTS = 500
"""Mounts looked at in one file."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_MOUNT = (
    r"\bhostPath[\"']?:\s{0,80}(?:\{\s{0,80})?(?:[\"']?type[\"']?:\s{0,8}[\"']?\w{0,20}[\"']?,?\s{0,80})?"
    r"(?:[\"']?path[\"']?:\s{0,8})?[\"']?(?:[^\s\"',]{0,100}?(?:docker|podman)\.sock\b"
    rf"|/(?:var/)?run/?(?=[\"'\s,}}]|\Z)|(?P<directory>{container_definitions.DIRECTORY})(?=[\"'\s,}}]|\Z))")

_ABOUT_DOCKER = r"(?i:\bdocker(?!hub|config|[./]io\b|\.com\b)|podman)"
"""No registry of images. Agents that measure a node mount its root directory, and most nodes run no Docker."""

_IS = r"[\"']?\s{0,8}:\s{0,8}[\"']?"
_UNKNOWN = r"\{\{|\$"
_IS_REACHABLE = (
    rf"hostPort{_IS}(?:[1-9]|{_UNKNOWN})|hostNetwork{_IS}(?:true|yes|on\b|{_UNKNOWN})|\bnodePort\b"
    r"|\b(?:NodePort|LoadBalancer)\b")
"""A value of a template may be true."""


def first_mount(text: str) -> int | None:
    """Return the offset of the first mount of the API socket in a pod that others can connect to. The Service is often
    in another file: other pods reach each port of a pod (kubernetes.io, "Services, Load Balancing, and Networking").
    """
    mounts = [found for found in islice(re.finditer(_MOUNT, text), MAX_MOUNTS)
              if not found["directory"] or re.search(_ABOUT_DOCKER, text) is not None]
    if mounts and re.search(_IS_REACHABLE, text) is None:
        documents = container_definitions.starts(container_definitions.SEPARATOR, text)
        ports = container_definitions.starts(r"\bcontainerPort\b", text)
        mounts = [found for found in mounts if container_definitions.has_any(
            ports, *container_definitions.document(documents, found.start()))]
    return mounts[0].end() - 1 if mounts else None
