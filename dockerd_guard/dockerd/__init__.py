"""How dockerd reads its options, release by release: flags, hosts, daemon.json, TLS. Knows nothing of systemd."""
