"""The scripts of the page, which share one scope."""

import re
from importlib.resources import files

from credit.lens.page import SCRIPTS


def test_no_two_scripts_define_the_same_name():
    scripts = [files("credit.lens").joinpath("web", f"{name}.js").read_text("utf-8") for name in SCRIPTS]
    pattern = r"^(?:async )?(?:function\*?|class|const|let) (\w+)"
    names = [name for script in scripts for name in re.findall(pattern, script, re.MULTILINE)]
    assert len(names) == len(set(names)) > 100
