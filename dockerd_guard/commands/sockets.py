"""The verb `sockets`: where the Docker API listens, in each layer, with the configuring lines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import OK, Look, each, observe_files, print_lines, root_name
from dockerd_guard.report import json_output, text

if TYPE_CHECKING:
    from types import SimpleNamespace


def run(options: SimpleNamespace) -> int:
    """Print the layers of each root. Returns the exit code."""
    def show(look: Look) -> int:
        if options.format == "json":
            print(json_output.dump(json_output.sockets(look.seen), root=root_name(options, look)))
        else:
            print_lines(text.sockets(look.seen, verbose=options.verbose))
        return OK

    return each(options, show, with_policy=False, adapted=partial(_with_stock_unit, options))


def _with_stock_unit(options: SimpleNamespace, look: Look) -> Look:
    """A tree without docker.service as it would be with that of a package, as `lint` judges it."""
    from dockerd_guard.observe import layouts

    is_missing = options.root and layouts.is_missing(look.seen.configured)
    domain = layouts.with_stock_unit(look.seen.rootfs) if is_missing else None
    if domain is None:
        return look
    seen = observe_files(domain.rootfs, options.docker_version)
    layer = seen.configured.layer
    bindings = tuple(binding._replace(source=domain.place(binding.source)) if binding.source is not None else binding
                     for binding in layer.bindings)
    configured = seen.configured._replace(layer=layer._replace(bindings=bindings))
    return look._replace(seen=seen._replace(configured=configured), notes=(*look.notes, domain.note))
