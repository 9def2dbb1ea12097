"""The sessions of noxfile.py without nox: what they install, and with which variables."""

import runpy
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Session:
    """Takes the place of nox's session and keeps its installs."""

    posargs = ()

    def __init__(self):
        self.env, self.installed = {}, []

    def install(self, *words):
        environment = {name: value for name, value in self.env.items() if value is not None}
        self.installed.append((environment, [word for word in words if word != "--no-compile"]))

    def run(self, *_, **__):
        pass


def list_installs(name, monkeypatch):
    """For each pip install of that session, the variables that are set and the arguments."""
    nox = types.ModuleType("nox")
    nox.options, nox.Session = types.SimpleNamespace(), Session
    nox.session = lambda function=None, **_: function or (lambda other: other)
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.chdir(ROOT)
    session = Session()
    runpy.run_path(str(ROOT / "noxfile.py"))[name](session)
    return session.installed
