"""What the page is given: runs, batches, estimators, rewards and further fields, each stored once."""

import re
from html import unescape
from json import loads

import numpy as np
import pytest

import credit
from credit import lens
from credit.lens.payload import pack

N, T = 4, 3
TOKENS = [["a", "b", "c"]] * N


def rollouts(**more):
    ones = np.ones((N, T))
    fields = {"deviation": ones / 2, "normalized_entropy": ones} | more
    return credit.Rollouts(np.array([1.0, 0, 0, 1]), np.array([0, 0, 1, 1]), ones, **fields)


def completions(estimator, given=None, **more):
    given = rollouts() if given is None else given
    result = estimator(given)
    lines = lens.format_records(tokens=TOKENS, rollouts=given, result=result, estimator=estimator, **more)
    return list(lens.parse_records(lines))


def about(**runs):
    return pack(runs)[0]


def describe(*estimators, **more):
    return about(run=[line for each in estimators for line in completions(each, **more)])["estimators"]


def test_a_batch_ends_with_its_run_step_or_estimator_or_where_rows_start_again():
    grpo, dgpo = credit.GRPO(), credit.DGPO()
    first = [*completions(grpo, step=1)[:2], *completions(grpo, step=2)[2:], *completions(dgpo, step=2)[3:]]
    found = about(a=[*first, *completions(dgpo, step=2)[3:]], b=completions(dgpo, step=2)[3:])
    assert found["runs"] == ["a", "b"]
    assert found["run"] == [0, 0, 0, 0, 0, 0, 1]
    assert found["batch"] == [0, 0, 1, 1, 2, 3, 4]
    assert found["step"] == [1, 1, 2, 2, 2, 2, 2]
    assert found["estimator"] == [0, 0, 0, 0, 1, 1, 1]


DESCRIBED = {
    "dgpo(tau=0.5, kappa=1)": credit.DGPO(),
    "dgpo(tau=0.05, kappa=1, eps=0.0001)": credit.DGPO(tau=0.05, eps=1e-4),
    "dgpo(tau=0.12345678, kappa=1)": credit.DGPO(tau=0.12345678),
    "dgpo(tau=inf, kappa=0)": credit.DGPO(tau=float("inf"), kappa=0),
    "dgpo(effective_fraction=0.5, kappa=1)": credit.DGPO(effective_fraction=0.5),
    "dgpo(tau=1→0.2 linear, kappa=1)": credit.DGPO(tau={"start": 1, "end": 0.2}),
    "dgpo(tau=0.5, kappa=1, base=rloo)": credit.DGPO(base=credit.RLOO()),
    "dgpo(tau=0.5, kappa=1, base=grpo(eps=0.1))": credit.DGPO(base=credit.GRPO(eps=0.1)),
    "dgpo(tau=0.5, kappa=1, negative=inverse)": credit.DGPO(negative="inverse"),
    "grpo": credit.GRPO(),
    "grpo(leave_one_out=True, loss.clip_high=0.28)": credit.GRPO(
        leave_one_out=True, loss={"clip_high": 0.28}
    ),
    "mix(parts=[[0.7, grpo], [0.3, dgpo(tau=0.1, kappa=1)]])": credit.Mix(
        parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))]
    ),
}


@pytest.mark.parametrize("words", DESCRIBED)
@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
def test_an_estimator_is_described_by_what_is_its_own(words):
    given = rollouts(progress=np.array(0.5))
    assert describe(DESCRIBED[words], given=given) == [words]


def test_a_schedule_is_one_estimator_over_all_steps():
    estimator = credit.DGPO(tau={"start": 1, "end": 0.2, "kind": "cosine"})
    steps = [completions(estimator, rollouts(progress=np.array(p)), step=int(10 * p)) for p in (0.0, 0.5)]
    found = about(run=[line for step in steps for line in step])
    assert found["estimators"] == ["dgpo(tau=1→0.2 cosine, kappa=1)"]
    assert [found["rules"][rule]["tau"] for rule in found["rule"][::N]] == [1.0, pytest.approx(0.6)]


def test_different_settings_never_share_a_description():
    near = [credit.DGPO(tau=tau) for tau in (0.1, 0.1 + 1e-9, 0.1 + 1e-12)]
    assert len(set(describe(*near, *near))) == 3
    line = completions(credit.GRPO())[0]
    alike = [{"name": "mine", "x": x} for x in (1, "1", None, "None")]
    lines = [line.model_copy(update={"estimator": settings}) for settings in alike]
    assert about(run=lines)["estimators"] == ["mine(x=1)", "mine(x=1) #2", "mine(x=None)", "mine(x=None) #2"]


def test_a_record_without_a_newer_setting_has_its_default():
    line = completions(credit.DGPO())[0]
    settings = {k: v for k, v in line.estimator.items() if k not in ("within", "eps")}
    settings["loss"] = {k: v for k, v in settings["loss"].items() if k != "rollout_level"}
    older = line.model_copy(update={"estimator": settings})
    assert about(run=[line, older])["estimators"] == ["dgpo(tau=0.5, kappa=1)"]
    bare = line.model_copy(update={"estimator": {"name": "dgpo", "tau": 0.05}})
    (rule,) = about(run=[bare])["rules"]
    assert (rule["tau"], rule["kappa"], rule["redistributes"]) == (0.05, 1, True)
    strange = line.model_copy(update={"estimator": {"name": ["dgpo"]}})
    assert about(run=[strange])["estimators"] == ["['dgpo']"]


def test_whole_numbers_that_javascript_would_round_are_text():
    large = {"id": [12345678901234567890, [2**53 + 1], {"a": -(2**60)}, 2**53]}
    extras = about(run=completions(credit.GRPO(), extra=large))["extras"]
    assert [each["id"] for each in extras] == [
        "12345678901234567890",
        ["9007199254740993"],
        {"a": "-1152921504606846976"},
        2**53,
    ]


def test_rewards_are_given_as_recorded_and_in_total():
    several = rollouts()._replace(rewards=np.array([[1, 2], [np.nan, 1], [np.nan, np.nan], [0, 0]]))
    found = about(run=[*completions(credit.GDPO(), several), *completions(credit.GRPO())])
    assert found["rewards"] == [[1, 2], [None, 1], [None, None], [0, 0], None, None, None, None]
    assert found["reward"] == [3, 1, None, 0, 1, 0, 0, 1]


def test_further_fields_are_stored_once():
    calls = [{"name": "add"}]
    extra = {"answer": ["4", "4", "5", "4"], "calls": [calls, calls, calls, None]}
    lines = completions(credit.GRPO(), extra=extra)
    found = about(run=[*lines, *completions(credit.GRPO())])
    assert found["extra"] == [0, 0, 1, 2, 3, 3, 3, 3]
    assert found["extras"][:2] == [{"answer": answer, "calls": calls} for answer in "45"]
    assert found["extras"][3] == {}


def test_a_number_of_another_writer_that_json_lacks_is_null_in_the_page():
    line = completions(credit.GRPO(), extra={"score": [1, 2, 3, 4]})[0].model_dump_json()
    other = line.replace('"score":1', '"score":NaN')
    assert "NaN" in other
    assert about(run=lens.parse_records([other]))["extras"] == [{"score": None}]
    for name, written in (("reward", '"reward":Infinity'), ("advantage", '"advantage":NaN')):
        number = line[line.index(f'"{name}":') :].partition(",")[0]
        assert about(run=lens.parse_records([line.replace(number, written)]))[name] == [None]


def embedded(html):
    return loads(unescape(re.search(r'id="about">(.*?)</script>', html).group(1)))


def test_a_page_names_its_runs_and_its_note():
    lines = completions(credit.GRPO())
    found = embedded(lens.page(lines, "one"))
    assert (found["title"], found["note"], found["runs"]) == ("one", None, ["one"])
    found = embedded(lens.page({"a": lines, "b": lines}, "two", note="<b>look</b>"))
    assert (found["title"], found["note"], found["runs"]) == ("two", "<b>look</b>", ["a", "b"])


def write(path, **more):
    path.parent.mkdir(exist_ok=True)
    lens.append_records(path, [line.model_dump_json() + "\n" for line in completions(credit.GRPO(), **more)])
    return path


def test_files_become_runs_of_distinct_names(tmp_path):
    a, b = (write(tmp_path / name / "credit.jsonl") for name in "ab")
    assert embedded(lens.show(a).html)["runs"] == ["credit.jsonl"]
    found = embedded(lens.show(str(a), b).html)
    assert (found["runs"], found["title"]) == (
        ["a/credit.jsonl", "b/credit.jsonl"],
        "a/credit.jsonl, b/credit.jsonl",
    )
    lines = completions(credit.GRPO())
    assert embedded(lens.show(a, a, lines, {"mine": lines}).html)["runs"] == [
        "credit.jsonl",
        "credit.jsonl (2)",
        "samples",
        "mine",
    ]
    assert embedded(lens.show({"first": a, "second": str(b)}).html)["runs"] == ["first", "second"]
    with pytest.raises(ValueError, match="there is no source; expected a path"):
        lens.show()
