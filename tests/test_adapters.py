"""The contract of the adapters: one record and one table each, the same files, and the shared rules.

The records are loaded from their files, since importing an adapter needs its framework.
"""

import ast
import importlib.util
import logging
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import credit
from credit import fields
from credit.adapters import extra, hooks, loss_report, post_import, rules, table, traits
from credit.adapters import fields as adapter_fields
from credit.adapters.framework import Framework
from credit.loss import Aggregation
from credit.types import FIELDS

ROOT = Path(__file__).parents[1]
ADAPTERS = sorted(path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py"))
FILES = ("hooks", "settings", "options", "statistics", "rollouts", "trainer")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def load_hooks(adapter):
    path = ROOT / "adapters" / adapter / "hooks.py"
    spec = importlib.util.spec_from_file_location(f"hooks_of_{adapter}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_same_job_has_the_same_file(adapter):
    found = {path.stem for path in (ROOT / "adapters" / adapter).glob("*.py")}
    lacking = ", ".join(f"{name}.py" for name in FILES if name not in found)
    assert not lacking, f"adapters/{adapter} lacks {lacking}"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_extra_asks_for_the_supported_releases(adapter):
    framework = load_hooks(adapter).FRAMEWORK
    assert adapter in EXTRAS, (
        f"add the extra `{adapter}` to pyproject.toml; it asks for {framework.requirement}"
    )
    supported, asked = Requirement(framework.requirement), map(Requirement, EXTRAS[adapter])
    found = [each.specifier for each in asked if each.name == supported.name]
    assert found == [supported.specifier], (
        f"the extra `{adapter}` of pyproject.toml asks for {', '.join(EXTRAS[adapter])}, "
        f"`supported` in adapters/{adapter}/hooks.py for {framework.requirement}"
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_record_speaks_of_what_there_is(adapter):
    framework = load_hooks(adapter).FRAMEWORK
    optional = set(FIELDS) - {"rewards", "groups", "mask"}
    assert set(framework.provides) <= optional | set(fields.EXTRAS)
    assert set(framework.given) <= optional - set(framework.provides)
    assert framework.extra or not framework.given
    assert set(framework.aggregations.values()) <= set(get_args(Aggregation))
    assert bool(framework.rollout_log_probs) == ("rollout_log_probs" in framework.provides)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_table_has_a_signature_for_every_function(adapter):
    functions = load_hooks(adapter).FUNCTIONS
    assert functions
    for owner, signatures in functions.items():
        assert all(part.isidentifier() for part in owner.replace(":", ".").split(".")), owner
        signatures = {"__init__": signatures} if isinstance(signatures, str) else signatures
        for name, forms in signatures.items():
            for parameters in [forms] if isinstance(forms, str) else forms.values():
                assert all(each.isidentifier() for each in (name, *parameters.split())), (owner, name)


def read_attributes(folder, owner):
    """The names that the code in a folder reads of a variable, or of an attribute, of that name."""
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                of = node.value
                if owner in (getattr(of, "id", None), getattr(of, "attr", None)):
                    yield node.attr


@pytest.mark.parametrize("adapter", ["trl", "swift", "slime"])
def test_the_options_that_an_adapter_reads_are_in_its_table(adapter):
    folder, place = ROOT / "adapters" / adapter, f"OPTIONS in adapters/{adapter}/hooks.py"
    settings = ast.walk(ast.parse((folder / "settings.py").read_text()))
    own = {node.target.id for node in settings if isinstance(node, ast.AnnAssign)}
    read, listed = set(read_attributes(folder, "args")), set(load_hooks(adapter).OPTIONS.split())
    assert not read - own - listed, f"add them to {place}"
    assert not listed - read - own, f"no code reads them: take them out of {place}"


def pins(name):
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_trls_releases_are_the_same_everywhere():
    supported = SpecifierSet(load_hooks("trl").FRAMEWORK.supported)
    releases = [str(each.specifier).removeprefix("==") for each in pins("trl-releases")]
    minors = [Version(release).release[:2] for release in releases]
    bounds = {each.operator: Version(each.version).release[1] for each in supported}
    assert minors == [(1, minor) for minor in range(bounds[">="], bounds["<"])]
    assert all(map(supported.contains, releases))
    (newest,) = (str(each.specifier) for each in pins("trl") if each.name == "trl")
    assert newest == f"=={releases[-1]}"
    (oldest_minor, newest_minor) = (f"1.{minors[place][1]}" for place in (0, -1))
    for name in ("README.md", "docs/trl.md"):
        assert f"TRL {oldest_minor} to {newest_minor}" in (ROOT / name).read_text(), name


FRAMEWORK = Framework(
    name="Frame",
    distribution="pytest",
    supported=">=1",
    provides=(*credit.TokenStatistics._fields, "rollout_log_probs", "progress"),
    group_size="samples",
    rollout_log_probs="record=True",
    aggregations={"tokens": "token_mean", "rows": "sequence_mean"},
    extra="a column",
    prefix="our_",
    loss_hint="a hint",
)


class NeedsSampled(credit.GRPO):
    """Reads the log-probs of the engine that sampled."""

    name: Literal["needs_sampled_log_probs"] = "needs_sampled_log_probs"

    @property
    def needs(self):
        return ("rollout_log_probs",)


class Reads(credit.GRPO):
    """Reads arrays of those names; with `use`, as its own weights."""

    name: Literal["reads"] = "reads"
    names: tuple[str, ...] = ()
    row: bool = False

    def __init__(self, *names, **settings):
        super().__init__(names=names, **settings)

    @property
    def needs(self):
        return self.names

    def advantages(self, rollouts):
        advantages = super().advantages(rollouts)
        return advantages * rollouts.extra["own"] if self.row else advantages

    def weights(self, rollouts, advantages):
        return rollouts.mask if self.row or not self.names else rollouts.extra["own"]


PRODUCT = credit.DGPO()


@pytest.mark.parametrize(
    ("rule", "refused", "accepted", "message"),
    [
        (
            rules.refuse_missing_fields,
            [credit.ReMax()],
            [PRODUCT],
            "our_remax needs baseline_rewards, which Frame",
        ),
        (
            rules.refuse_missing_fields,
            [credit.DGPO(within="turn")],
            [credit.DGPO(tau={"start": 1.0, "end": 0.1})],
            "our_dgpo needs turns, which Frame does not provide",
        ),
        (
            rules.refuse_missing_fields,
            [Reads("extra.kl", "extra.own")],
            [Reads("extra.own", "extra.values")],
            "our_reads needs extra.kl, which Frame does not provide$",
        ),
        (
            rules.refuse_missing_fields,
            [Reads("own")],
            [Reads()],
            "our_reads needs own, .*; an array of your own is 'extra.own' in needs and comes from a column",
        ),
        (
            rules.refuse_unrecorded_log_probs,
            [NeedsSampled(), False],
            [NeedsSampled(), True],
            "our_needs_sampled_log_probs needs rollout_log_probs, .* set record=True",
        ),
        (
            rules.refuse_several_rewards,
            [credit.GDPO(), "their sum", "its own, or "],
            [credit.GRPO(), "their sum"],
            "passes on their sum; use its own, or another estimator, such as our_reinforce_plus_plus_baseline",
        ),
        (
            rules.refuse_several_rewards,
            [credit.Mix(parts=[(1.0, credit.GDPO())]), "their sum"],
            [credit.Mix(parts=[(1.0, credit.GRPO())]), "their sum"],
            "our_mix weighs several rewards",
        ),
    ],
)
def test_a_rule_refuses_what_cannot_work_and_nothing_else(rule, refused, accepted, message):
    with pytest.raises(ValueError, match=message):
        rule(FRAMEWORK, *refused)
    rule(FRAMEWORK, *accepted)


def test_the_table_of_estimators_and_frameworks_is_the_codes():
    text = (ROOT / "adapters/README.md").read_text()
    _, _, rest = text.partition("<!-- python -m credit.adapters.table -->\n")
    assert rest.partition("<!-- end -->")[0] == table.write_markdown(), (
        "put the output of python -m credit.adapters.table into adapters/README.md"
    )


def test_the_readme_names_every_shared_file_and_every_file_of_verls():
    text, folder = (ROOT / "adapters/README.md").read_text(), ROOT / "adapters"
    names = {path.name for path in (*folder.glob("*.py"), *(folder / "verl").glob("*.py"))} - {"__init__.py"}
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_rules_that_try_the_estimator():
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="single response every advantage is 0; set samples to 2 or more"):
        rules.refuse_single_responses(FRAMEWORK, credit.GRPO(), 1)
    rules.refuse_single_responses(FRAMEWORK, credit.GRPO(), 2)
    rules.refuse_single_responses(FRAMEWORK, credit.ReinforcePlusPlus(), 1)
    with pytest.raises(
        ValueError, match="^level=row gives .* cancels the token weights of our_dgpo; set token$"
    ):
        rules.refuse_one_ratio(FRAMEWORK, PRODUCT, "level=row", "set token")
    rules.refuse_one_ratio(FRAMEWORK, credit.GRPO(), "level=row", "set token")


def test_an_estimator_of_unknown_arrays_is_tried_with_each_shape():
    pytest.importorskip("torch")
    rules.refuse_single_responses(FRAMEWORK, Reads("extra.own", row=True), 2)
    assert not traits.differs_between_tokens(Reads("extra.own", row=True))
    assert traits.differs_between_tokens(Reads("extra.own"))
    with pytest.raises(ValueError, match="single response every advantage is 0"):
        rules.refuse_single_responses(FRAMEWORK, Reads("extra.own"), 1)
    assert traits.differs_between_tokens(Reads("extra.other"))  # which has no array that it takes


LENGTHS, WIDTH = [2, 3, 1], 4
PER_TOKEN = [[0.5, 1], (2, 3, 4), np.array([5])]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1, 2.5, np.float64(3)], np.array([1, 2.5, 3], np.float32)),
        ([True, False, True], np.array([True, False, True])),
        ([1, 2, np.int8(3)], np.array([1, 2, 3])),
        (PER_TOKEN, np.array([[0.5, 1, 0, 0], [2, 3, 4, 0], [5, 0, 0, 0]], np.float32)),
        ([[1, 2], [3, 4], [5, 6]], np.array([[1, 2], [3, 4], [5, 6]])),
        (np.arange(12).reshape(3, 4), np.arange(12).reshape(3, 4)),
    ],
)
def test_rows_of_the_users_own_become_an_array_of_the_shape_that_they_fit(rows, expected):
    found = extra.stack_rows("extra.own", rows, LENGTHS, WIDTH)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("extra.own", [1, 2], "extra.own has 2 rows for 3 responses; give one for each"),
        ("extra.own", [1, None, 2], "extra.own of row 1 is None; expected a number, or numbers in one list"),
        ("extra.own", [1, "a", 2], "extra.own of row 1 is 'a'; expected"),
        ("extra.own", [[[1]], [[1]], [[1]]], r"extra.own of row 0 is \[\[1\]\]; expected"),
        ("extra.own", [[1, 2], [1, 2], [1]], "row 1 has 2 values, and its response 3 tokens; expected a num"),
        ("extra.own", [1, [1, 2, 3], 1], "row 0 has a number, and its response 2 tokens; expected a number"),
        (
            "extra.values",
            [1, 2, 3],
            "row 0 has a number, and its response 2 tokens; expected one value per t",
        ),
        ("token_rewards", [[1], [1], [1]], "token_rewards of row 0 has 1 values, and its response 2 tokens"),
    ],
)
def test_rows_that_fit_no_shape_are_named(name, rows, message):
    with pytest.raises(ValueError, match=message):
        extra.stack_rows(name, rows, LENGTHS, WIDTH)


def test_rows_of_several_processes_become_arrays_of_one_kind():
    whole = extra.stack_rows("extra.own", [[1, 2], [3, 4]], [2, 2], 3)
    assert (whole.shape, whole.dtype) == ((2, 3), np.int64)  # per token here, as many values elsewhere
    parted = extra.stack_rows("extra.own", [[1, 2], [3, 4]], [2, 2], 3, lambda kind: (0, -2))
    assert (parted.shape, parted.dtype) == ((2, 2), np.float32)


def test_the_parts_of_a_mix_make_up_the_mix():
    rng = np.random.default_rng(0)
    ids, mask = np.array([0, 0, 0, 1, 1, 1]), rng.random((6, 4)) < 0.8
    scores = {name: rng.random((6, 4)) for name in ("deviation", "normalized_entropy")}
    given = credit.Rollouts(rng.normal(size=6), ids, mask, **scores)
    inner = credit.Mix(parts=[(-3.0, credit.RLOO()), (1.0, credit.TopEntropy())])
    for mix in (credit.Mix(parts=[(0.5, PRODUCT), (2.0, inner), (0.25, credit.GRPO())]), inner, PRODUCT):
        parts = [(part, part.estimator(given)) for part in traits.list_parts(mix)]
        assert all(part.estimator.is_product for part, _ in parts)
        result = mix(given)
        np.testing.assert_allclose(sum(p.factor * each.advantages for p, each in parts), result.advantages)
        np.testing.assert_allclose(sum(p.share * each.weights for p, each in parts), result.weights)


def test_a_mix_filters_groups_if_a_part_does():
    for estimator, filters in ((credit.DAPO(), True), (credit.GRPO(), False)):
        mix = credit.Mix(parts=[(0.5, credit.RLOO()), (0.5, estimator)])
        for each in (estimator, mix, credit.Mix(parts=[(1.0, mix)])):
            assert traits.filters_groups(each) == filters


def test_an_estimator_filters_groups_and_weighs_rewards_if_its_base_does():
    on_dapo, on_rloo = credit.DGPO(base="dapo"), credit.DGPO(base="rloo")
    on_gdpo = credit.DGPO(base=credit.GDPO(reward_weights=(1, 2)))
    filters, weighs = traits.filters_groups, traits.weighs_rewards
    assert filters(on_dapo)
    assert not any(map(filters, (on_rloo, credit.DGPO(), on_gdpo)))
    assert weighs(on_gdpo)
    assert weighs(credit.Mix(parts=[(1, on_gdpo)]))
    assert not any(map(weighs, (on_rloo, credit.DGPO(), on_dapo)))
    expected = credit.DGPO(base=credit.GDPO(reward_weights=(3, 4)))
    assert traits.set_reward_weights(on_gdpo, [3, 4]) == expected
    assert traits.find_weigher(on_gdpo) == on_gdpo.base
    assert traits.find_weigher(on_rloo) is None
    assert traits.differs_between_tokens(on_gdpo)
    assert traits.learns_from_single_responses(credit.DGPO(base="remax"))
    with pytest.raises(ValueError, match="our_dgpo needs baseline_rewards"):
        rules.refuse_missing_fields(FRAMEWORK, credit.DGPO(base="remax"))


def test_the_statistics_of_a_base_are_computed_too():
    found = adapter_fields.needed_statistics(credit.DGPO(kappa=0, base="grpo_s"))
    assert set(found) == {"deviation", "normalized_entropy"}


def test_a_reward_that_decides_is_found_wherever_it_is_set():
    dapo = credit.DAPO(filter_by=1)
    mix = credit.Mix(parts=[(1, credit.DGPO(base=dapo)), (1, credit.GRPO()), (1, credit.DAPO())])
    for estimator in (dapo, credit.DGPO(base=dapo), mix, credit.Mix(parts=[(1, mix)])):
        assert traits.find_filters(estimator) == [1]
        with pytest.raises(
            ValueError, match="^filter_by=1 of our_.* has no effect in Frame, because; do this$"
        ):
            rules.refuse_filter_by(FRAMEWORK, estimator, "because", "do this")
    rules.refuse_filter_by(FRAMEWORK, credit.DAPO(), "because", "do this")


def test_the_report_names_what_differs_and_only_that(caplog):
    with caplog.at_level(logging.WARNING, logger="credit"):
        options = {"clip_low": ("low", 0.2, 0.2), "clip_high": ("high", 0.3, 0.2)}
        loss_report.report_loss_differences(FRAMEWORK, PRODUCT, options, ("mean", "tokens"))
    (record,) = caplog.records
    expected = "Frame's loss options are used as they are; our_dgpo has other values (in brackets; a hint): "
    assert record.getMessage() == expected + "mean=tokens (rows), high=0.3 (0.2)"
    caplog.clear()
    equal = {"clip_low": ("low", 0.2, 0.2), "temperature_positive": ("tau", 3.0, 1.0)}
    loss_report.report_loss_differences(FRAMEWORK, PRODUCT, equal, ("mean", "rows"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("loss", "parts", "others"),
    [
        (
            {"objective": "dppo_kl", "clip_low": 0.05, "clip_high": 0.05},
            ["objective='dppo_kl'"],
            ["low", "clip"],
        ),
        (
            {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
            ["low=0.2 (0.0003)", "ratio='sequence'"],
            [],
        ),
        (
            {"rollout_cap": 5.0, "rollout_rule": "mask"},
            [
                "Frame's loss is used as it is; no option is known for rollout_cap=5.0, rollout_rule='mask' of our_"
            ],
            ["brackets", "low"],
        ),
    ],
    ids=str,
)
def test_what_no_option_expresses_is_named_and_not_ignored(caplog, loss, parts, others):
    estimator = credit.DGPO(loss=loss)
    options = {"clip_low": ("low", 0.2, estimator.loss.clip_low)}
    with caplog.at_level(logging.WARNING, logger="credit"):
        loss_report.report_loss_differences(FRAMEWORK, estimator, options, ("mean", "rows"))
    (record,) = caplog.records
    for part in parts:
        assert part in record.getMessage()
    for part in others:
        assert part not in record.getMessage()


def test_a_table_is_compared_with_what_is_installed():
    table = {"credit.adapters.rules": {"refuse_missing_fields": "framework estimator"}}
    hooks.check_framework(FRAMEWORK, table)
    for wrong, message in (
        (
            {"credit.adapters.rules": {"refuse_missing_fields": "estimator"}},
            r"takes \(framework, estimator\) in pytest",
        ),
        ({"credit.adapters.rules": {"refuse_nothing": "framework"}}, "refuse_nothing is missing in pytest"),
        ({"credit.adapters.no_module": {"any": ""}}, "no_module.*; credit supports pytest >=1"),
        ({"credit.adapters.rules:Nothing": {"any": ""}}, "Nothing.*; credit supports pytest >=1"),
    ):
        with pytest.raises(ImportError, match=message):
            hooks.check_framework(FRAMEWORK, wrong)


def test_a_function_is_compared_in_the_releases_that_call_it():
    def table(**forms):
        return {"credit.adapters.rules": {"refuse_missing_fields": forms}}

    wrong, right = "estimator", "framework estimator"
    hooks.check_functions(FRAMEWORK, table(**{"<1": wrong, ">=1": right}))
    hooks.check_functions(FRAMEWORK, table(**{"<1": wrong}))
    with pytest.raises(ImportError, match=r"takes \(framework, estimator\) in pytest"):
        hooks.check_functions(FRAMEWORK, table(**{"<1": right, ">=1": wrong}))


def test_a_parameter_that_ray_adds_is_no_change(monkeypatch):
    """`ray.remote` puts it into the signature of a class' methods, which SkyRL's own import does."""

    def refuse_missing_fields(framework, estimator, *, _ray_trace_ctx=None): ...

    monkeypatch.setattr(rules, "refuse_missing_fields", refuse_missing_fields)
    hooks.check_functions(
        FRAMEWORK, {"credit.adapters.rules": {"refuse_missing_fields": "framework estimator"}}
    )


def test_a_config_has_options_among_others():
    hooks.check_functions(FRAMEWORK, {"credit.adapters.framework:Framework": "prefix name"})
    with pytest.raises(ImportError, match="^Framework takes no size, other in pytest .*; credit supports"):
        hooks.check_functions(FRAMEWORK, {"credit.adapters.framework:Framework": "size name other"})


def test_an_attribute_has_to_be_there():
    hooks.check_functions(FRAMEWORK, {"credit.adapters.framework:Framework.can_have": {}})
    with pytest.raises(ImportError, match="Framework.* has no attribute 'cannot_have'; credit supports"):
        hooks.check_functions(FRAMEWORK, {"credit.adapters.framework:Framework.cannot_have": {}})


TABLE = {"credit.adapters.rules": {"refuse_missing_fields": "framework estimator"}}


@pytest.mark.parametrize("found", ["1.17.0", "2.0", "1.17.0.dev0", "1.17rc1"])
def test_a_newer_release_runs_with_a_warning_if_its_functions_are_those_known(monkeypatch, found):
    monkeypatch.setattr(hooks, "version", lambda _: found)
    frame = replace(FRAMEWORK, supported=">=1.9,<1.17", runs_newer=True)
    message = f"credit supports pytest >=1.9,<1.17 and found {found}, which is newer. It runs"
    with pytest.warns(UserWarning, match=message) as caught:
        hooks.check_framework(frame, TABLE)
    assert len(caught) == 1
    changed = {"credit.adapters.rules": {"refuse_missing_fields": "framework"}}
    with pytest.raises(ImportError, match=rf"refuse_missing_fields takes .* in pytest {found}"):
        hooks.check_framework(frame, changed)
    with pytest.raises(ImportError, match=f"and found {found}; pip install 'pytest>=1.9,<1.17'"):
        hooks.check_framework(replace(frame, runs_newer=False), TABLE)


@pytest.mark.parametrize(("found", "runs"), [("1.8.9", False), ("1.9.0", True), ("1.16.3", True)])
def test_an_older_release_is_refused_and_a_supported_one_runs_unsaid(monkeypatch, found, runs):
    monkeypatch.setattr(hooks, "version", lambda _: found)
    frame = replace(FRAMEWORK, supported=">=1.9,<1.17", runs_newer=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if runs:
            hooks.check_framework(frame, TABLE)
            return
        with pytest.raises(ImportError, match=f"and found {found}; pip install 'pytest>=1.9,<1.17'"):
            hooks.check_framework(frame, TABLE)


def test_all_functions_that_changed_are_named_at_once():
    table = {
        "credit.adapters.rules": {"refuse_missing_fields": "estimator", "refuse_nothing": "framework"},
        "credit.adapters.no_module": {"any": ""},
        "credit.adapters.hooks": {"check_version": "release"},
    }
    with pytest.raises(ImportError) as caught:
        hooks.check_functions(FRAMEWORK, table)
    text = str(caught.value)
    for changed in (
        "rules.refuse_missing_fields takes",
        "refuse_nothing is missing",
        "no_module",
        "check_version takes",
    ):
        assert changed in text
    assert text.count("credit supports pytest >=1") == 1


@pytest.mark.parametrize(
    ("distribution", "supported", "message"),
    [
        ("pytest", "<1", "credit supports pytest <1 and found .*; pip install 'pytest<1'"),
        (
            "no-such-package",
            ">=1",
            "needs no-such-package, which is not installed; pip install 'no-such-package>=1'",
        ),
    ],
)
def test_another_release_is_refused(distribution, supported, message):
    names = {
        "name": "Frame",
        "provides": (),
        "group_size": "samples",
        "aggregations": {},
        "extra": "a column",
    }
    other = Framework(distribution=distribution, supported=supported, **names)
    with pytest.raises(ImportError, match=message):
        hooks.check_version(other)


def test_an_action_follows_the_import_and_nothing_is_imported_before(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    post_import.call_after_import("imported_late", lambda module: seen.append(module.value))
    assert post_import.has_action("imported_late")
    assert not seen
    import imported_late

    assert seen == [imported_late.value]
    post_import.call_after_import("imported_late", lambda module: seen.append("at once"))
    assert seen == [1, "at once"]
