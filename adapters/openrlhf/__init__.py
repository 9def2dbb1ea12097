"""OpenRLHF: estimators by name on its own command line, python -m credit.adapters.openrlhf"""

from credit.adapters import hooks

SUPPORTED = ">=0.10.4,<0.12"
hooks.check_version("openrlhf", SUPPORTED)
