"""Parsing of dockerd's options by release: flags, hosts, daemon.json, TLS. Independent of systemd."""
