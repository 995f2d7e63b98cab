"""Test data: vectors of systemd and dockerd, a corpus of configurations, and expected output. See tests.data.renew."""
