"""Profiles of the fuzz: "short" in the suite, the same examples each time; "long" by `make fuzz`, others each time."""

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "short", max_examples=120, derandomize=True, database=None, deadline=None, suppress_health_check=_SLOW
)
settings.load_profile("short")  # unless the command line names another
settings.register_profile("long", max_examples=2500, deadline=None, print_blob=True, suppress_health_check=_SLOW)
