"""Python imports this at its start where this folder is on PYTHONPATH, as it is for Ray's workers."""

import typed_dict  # noqa: F401
