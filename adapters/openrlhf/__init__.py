"""OpenRLHF: estimators by name on its own command line, python -m credit.adapters.openrlhf"""

from credit.adapters.hooks import check_version
from credit.adapters.openrlhf.hooks import FRAMEWORK

check_version(FRAMEWORK)  # the functions are checked where they are used, since OpenRLHF is not imported here
