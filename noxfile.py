"""One environment per framework, since their pins differ; `make test` runs all of them."""

import nox

nox.options.reuse_existing_virtualenvs = True
FRAMEWORKS = ("trl", "verl", "openrlhf", "tunix")
nox.options.sessions = ["core", *FRAMEWORKS]

# What OpenRLHF and DeepSpeed import on a CPU, of all that they ask for; ninja, setuptools and wheel build.
OPENRLHF = (
    *("accelerate", "aiohttp", "datasets", "einops", "peft", "pillow", "pylatexenc", "ray[default]", "sympy"),
    *("tensorboard", "torchdata", "transformers", "hjson", "msgpack", "psutil", "py-cpuinfo", "tqdm"),
    *("ninja", "setuptools", "wheel"),
)


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
    ignored = (f"--ignore=tests/{name}" for name in (*FRAMEWORKS, "study"))
    session.run("pytest", "-n", "2", "--dist", "worksteal", *ignored, *session.posargs)


@nox.session
def trl(session: nox.Session) -> None:
    """TRL's real trainer with our estimators, the lens on two models, and the study on two short runs."""
    session.env["DS_BUILD_OPS"] = "0"  # DeepSpeed's compiled operators are for GPUs
    install(session, "trl", "-e", ".[trl,demo,study]", "pytest", "peft", "deepspeed")
    # The warnings here are the frameworks' own.
    tests = ("tests/trl", "tests/lens/test_sampling.py", "tests/study")
    session.run("pytest", *tests, "-W", "default", "--disable-warnings", *session.posargs)


@nox.session
def verl(session: nox.Session) -> None:
    """verl's whole pipeline on a CPU with our estimators, on a tiny model."""
    install(session, "verl", "-e", ".[verl]", "pytest")
    session.run("pytest", "tests/verl", "-W", "default", "--disable-warnings", *session.posargs)


@nox.session
def openrlhf(session: nox.Session) -> None:
    """OpenRLHF's whole command line on a CPU with our estimators, on a tiny model."""
    install(session, "openrlhf", "-e", ".[torch]", "pytest", *OPENRLHF)
    # OpenRLHF asks for flash-attn, which needs CUDA to be built; on a CPU a stand-in takes its place.
    session.install("-c", "constraints/openrlhf.txt", "--no-deps", "openrlhf")
    build = ("--no-deps", "--no-build-isolation")
    session.install("-c", "constraints/openrlhf.txt", *build, "deepspeed", env={"DS_BUILD_OPS": "0"})
    session.run("pytest", "tests/openrlhf", "-W", "default", "--disable-warnings", *session.posargs)


@nox.session
def tunix(session: nox.Session) -> None:
    """Tunix's real learner with our estimators, on a tiny model and four host devices."""
    # Of what Tunix asks for, training imports half: no datasets, transformers, numba or sympy.
    session.install("--no-deps", "-r", "constraints/tunix.txt", "-e", ".")
    session.run("pytest", "tests/tunix", "-W", "default", "--disable-warnings", *session.posargs)


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
