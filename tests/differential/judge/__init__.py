"""What the real systemd and the real dockerd do with a tree of files: see __main__.py."""
