"""One environment per framework, since their pins differ.

`make quick` installs core's environment and runs the session quick: style, types, and the essentials on
numpy and torch.
`make test` runs the sessions core, verl, trl, tunix, openrlhf, swift, slime, skyrl, unsloth and tinker, two
at a time, without the slow tests.
`make trl-releases` runs what may differ between TRL's releases in each of them.
`make test-all` runs the same sessions with them. What follows `--` goes to pytest, as in
`nox -s trl -- -m "" -k resuming`, where the empty -m selects slow tests too.

A test is marked slow where its environment would take more than five minutes with it, and what it shows is
rarer or follows from other tests: a property of estimators on torch, JAX and array-api-strict, for example,
follows from the property on numpy and from each library's agreement with the oracle.
"""

from pathlib import Path

import nox

# What pip installs for each supported release of TRL, from the oldest.
TRL_RELEASES = [
    line for line in Path("constraints/trl-releases.txt").read_text().splitlines() if not line.startswith("#")
]

nox.options.reuse_existing_virtualenvs = True
nox.options.allow_parallel = True
FRAMEWORKS = ("verl", "trl", "tunix", "openrlhf", "swift", "slime", "skyrl")
nox.options.sessions = ["core", *FRAMEWORKS, "unsloth", "tinker"]

# The style, the types and these tests take less than two minutes on two cores.
QUICK = (
    *("test_settings", "test_worked_examples", "test_estimators", "test_mix", "test_redistribution"),
    *("test_bad_input", "test_loss", "test_rewards", "test_schedule", "test_merge", "test_import"),
    *("test_statistics", "test_statistics_errors", "test_statistics_torch", "test_packaging"),
)


def install(session: nox.Session, name: str, *more: str) -> None:
    """Installs the checkout and every package that constraints/<name>.txt pins.

    The pins name the whole environment, so pip has no versions to choose. Only torch is installed with what
    it requires, because its builds for GPUs bring libraries that the pins do not name. Bytecode is written
    when a module is first imported: pip would compile every file, which takes longer than unpacking it.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = None
    pins = f"constraints/{name}.txt"
    if name != "tunix":
        session.install("--no-compile", "-c", pins, "torch")
    session.install("--no-compile", "--no-deps", "-r", pins, "-e", ".", *more)


def run_framework_tests(session: nox.Session, *tests: str) -> None:
    """Runs tests beside a framework, whose warnings are its own."""
    session.run("pytest", *tests, "-W", "default", "--disable-warnings", *session.posargs)


def run_in_releases_of_trl(session: nox.Session, releases: list[str]) -> None:
    """Runs the tests marked `releases` in this environment with TRL alone swapped, and prints a table."""
    folder, reports = Path(session.create_tmp()).absolute(), []
    for requirement in releases:
        place, report = folder / requirement, folder / f"{requirement.partition('==')[2]}.xml"
        reports.append(str(report))
        report.unlink(missing_ok=True)
        if not place.exists():
            session.install("--no-compile", "--no-deps", "--target", str(place), requirement)
        session.run(
            *("pytest", "tests/trl", "-W", "default", "--disable-warnings", f"--junitxml={report}"),
            *(*session.posargs, "-m", "releases"),
            env={"PYTHONPATH": str(place)},
            success_codes=range(6),  # the table says what failed
        )
    session.run("python", "tests/trl/release_table.py", *reports)


def check_style_and_types(session: nox.Session, python: str = "python") -> None:
    session.run(python, "-m", "ruff", "check", ".", external=True)
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(python, "-m", "mypy", external=True)


@nox.session
def core(session: nox.Session) -> None:
    """Style, types and the tests of the core and its backends, on numpy, torch, JAX and array-api-strict."""
    install(session, "core")
    check_style_and_types(session)
    ignored = (f"--ignore=tests/{name}" for name in (*FRAMEWORKS, "study"))
    session.run("pytest", "-n", "2", "--dist", "worksteal", *ignored, *session.posargs)


@nox.session(default=False, venv_backend="none")
def quick(session: nox.Session) -> None:
    """Style, types and the essentials on numpy and torch, in core's environment, which must be there."""
    python = str(Path(".nox/core/bin/python").absolute())
    check_style_and_types(session, python)
    tests = (f"tests/{name}.py" for name in QUICK)
    left_out = "not jax and not strict and not vmap and not compiled"
    session.run(python, "-m", "pytest", "-n", "2", *tests, "-k", left_out, *session.posargs, external=True)


@nox.session
def verl(session: nox.Session) -> None:
    """verl's whole pipeline on a CPU with our estimators, on a tiny model."""
    install(session, "verl")
    run_framework_tests(session, "tests/verl")


@nox.session
def trl(session: nox.Session) -> None:
    """TRL's real trainer with our estimators, the lens on two models, and the study on two short runs."""
    session.env["DS_BUILD_OPS"] = "0"  # DeepSpeed's compiled operators are for GPUs
    install(session, "trl")
    run_framework_tests(session, "tests/trl", "tests/lens/test_sampling.py", "tests/study")
    # The oldest, the last before TRL's own head returned log-probs, and the contracts of the first after.
    minors = ("trl==1.14.", "trl==1.15.")
    older = [each for each in TRL_RELEASES if each == TRL_RELEASES[0] or each.startswith(minors)]
    run_in_releases_of_trl(session, older)


@nox.session(default=False)
def trl_releases(session: nox.Session) -> None:
    """What may differ between TRL's releases, in each of them; flags after `--` go to pytest."""
    session.env["DS_BUILD_OPS"] = "0"
    install(session, "trl")
    run_in_releases_of_trl(session, TRL_RELEASES)


@nox.session
def tunix(session: nox.Session) -> None:
    """Tunix's real learner with our estimators, on a tiny model and four host devices."""
    # The pins hold half of what Tunix asks for: training imports no datasets, transformers, numba or sympy.
    install(session, "tunix")
    run_framework_tests(session, "tests/tunix")


@nox.session
def openrlhf(session: nox.Session) -> None:
    """OpenRLHF's whole command line on a CPU with our estimators, on a tiny model."""
    # OpenRLHF asks for flash-attn, which needs CUDA to be built; on a CPU a stand-in takes its place.
    session.env["DS_BUILD_OPS"] = "0"  # DeepSpeed's compiled operators are for GPUs
    install(session, "openrlhf", "setuptools", "wheel")
    run_framework_tests(session, "tests/openrlhf")


@nox.session
def unsloth(session: nox.Session) -> None:
    """The trainer and loss that Unsloth generates, with TRL's adapter, on models of transformers."""
    install(session, "unsloth")
    run_framework_tests(session, "tests/trl/test_unsloth.py", "-m", "slow")


@nox.session
def tinker(session: nox.Session) -> None:
    """The example for tinker-cookbook, on its own types; its service is remote and not asked."""
    install(session, "tinker")
    run_framework_tests(session, "tests/test_tinker_advantages.py")


@nox.session
def swift(session: nox.Session) -> None:
    """ms-swift's command line on a CPU with our estimators, on a tiny model."""
    # The pins hold two thirds of what ms-swift asks for: these runs call no hub, server or tracker.
    install(session, "swift")
    run_framework_tests(session, "tests/swift")


@nox.session
def slime(session: nox.Session) -> None:
    """The functions that slime calls, on megatron-core's real models; what calls them stands in for slime."""
    # With SLIME_CHECKOUT and MEGATRON_CHECKOUT in the environment, slime's own functions call them.
    install(session, "slime")
    run_framework_tests(session, "tests/slime")


@nox.session
def skyrl(session: nox.Session) -> None:
    """SkyRL's trainer, workers and command on a CPU with our estimators, on a tiny model."""
    # SkyRL asks for vLLM and flash-attn, which need CUDA; on a CPU stand-ins take their places.
    install(session, "skyrl")
    run_framework_tests(session, "tests/skyrl")


@nox.session
def demo(session: nox.Session) -> None:
    """Trains a small language model with DGPO in TRL; flags after `--` go to examples/trl/train.py."""
    session.install("-c", "constraints/trl.txt", "-e", ".[trl,demo]")
    session.run("python", "examples/trl/train.py", *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """Compares estimators on small models; flags after `--` go to examples/study/run.py."""
    run_study(session, "examples/study/run.py")


@nox.session
def pivots(session: nox.Session) -> None:
    """When token weights find the tokens that decide; flags after `--` go to examples/study/pivots.py."""
    run_study(session, "examples/study/pivots.py")


def run_study(session: nox.Session, script: str) -> None:
    """A study in an environment of its own."""
    session.install("-c", "constraints/trl.txt", "-e", ".[study]")
    session.run("python", script, *session.posargs)


@nox.session(default=False)
def rehearse_gpu(session: nox.Session) -> None:
    """The command for GPUs on a CPU, with Triton's interpreter and every peer; flags go to on_gpu.py."""
    install(session, "trl", "-r", "constraints/core.txt", "liger-kernel==0.8.5")
    session.run(
        "python", "benchmarks/on_gpu.py", "--rehearse", "--output", "runs/rehearsal", *session.posargs
    )
