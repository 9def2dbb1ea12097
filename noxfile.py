"""One environment per framework, since their pins differ; `make test` runs all of them."""

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["core", "trl", "verl"]


def install(session: nox.Session, constraints: str, *requirements: str) -> None:
    """Installs the checkout with its extras, pinned by a constraints file."""
    session.install("-c", f"constraints/{constraints}.txt", *requirements)


@nox.session
def core(session: nox.Session) -> None:
    """Style, types and the tests of the core and its backends, on numpy, torch, JAX and array-api-strict."""
    install(session, "core", "-e", ".[test,torch,jax]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run(
        "pytest",
        "-n",
        "2",
        "--ignore=tests/trl",
        "--ignore=tests/verl",
        "--ignore=tests/study",
        *session.posargs,
    )


@nox.session
def trl(session: nox.Session) -> None:
    """TRL's real trainer with our estimators, on a tiny model; and the study, on two short runs."""
    install(session, "trl", "-e", ".[trl,demo,study]", "pytest", "peft")
    # The warnings here are the frameworks' own.
    session.run("pytest", "tests/trl", "tests/study", "-W", "default", "--disable-warnings", *session.posargs)


@nox.session
def verl(session: nox.Session) -> None:
    """verl's whole pipeline on a CPU with our estimators, on a tiny model."""
    install(session, "verl", "-e", ".[verl]", "pytest")
    session.run("pytest", "tests/verl", "-W", "default", "--disable-warnings", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Trains a small language model with DGPO in TRL; flags after `--` go to examples/trl/train.py."""
    install(session, "trl", "-e", ".[trl,demo]")
    session.run("python", "examples/trl/train.py", *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """Compares estimators on small models; flags after `--` go to examples/study/run.py."""
    install(session, "trl", "-e", ".[study]")
    session.run("python", "examples/study/run.py", *session.posargs)
