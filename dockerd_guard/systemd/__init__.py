"""Parsing of unit files as systemd does it, and systemd's D-Bus API. Independent of Docker.

Import from the modules: `units` (load_service, Service, Unit), `sockets` (sockets_for, Socket),
`environment` (resolve_environment), `exec` (Command, expand), `words` (Word, quote_word),
`syntax` (Setting, Problem), `lookup` (search path, masks, drop-ins), `manager` (D-Bus).
"""
