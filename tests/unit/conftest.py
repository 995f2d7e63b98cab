"""How long an input takes to be made or judged says more of the host's load than of what is tried."""

from hypothesis import HealthCheck, settings

settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")
