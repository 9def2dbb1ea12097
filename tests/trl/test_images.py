"""Models that read images: statistics against float64 forwards of one row at a time, text alone, records."""

import json
import re
import sys

import numpy as np
import pytest
import tiny_model
import torch
import trl
from datasets import Dataset
from test_command_line import CONFIG
from trl import GRPOTrainer
from vision_models import gemma3, picture, qwen25

import credit
import credit.adapters.trl.__main__ as command
from credit import lens
from credit.adapters.trl import statistics

peft = pytest.importorskip("peft")
LORA = peft.LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj", init_lora_weights=False)
FAMILIES = {"gemma3": gemma3, "qwen25": qwen25}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The path of each family's model, and its processor."""
    found = {}
    for name, make in FAMILIES.items():
        path, (model, processor) = str(tmp_path_factory.mktemp(name)), make()
        model.save_pretrained(path)
        found[name] = path, processor
    return found


def low(completions, **_):
    return [sum(c in "01234" for c in each[0]["content"]) / 12 for each in completions]


def pictures(number):
    """One or two images of several sizes for the prompt that says this number."""
    return [picture(10 * number + i, 8 + 8 * (number % 3), 8 * (1 + i)) for i in range(1 + number % 2)]


def prompts_with(images=None, count=40):
    rows = [{"prompt": [{"role": "user", "content": str(i)}]} for i in range(count)]
    return Dataset.from_list([row | ({"images": images(i)} if images else {}) for i, row in enumerate(rows)])


@pytest.fixture
def vision(saved, make_trainer):
    def make(family, *chosen, images=pictures, extra=None, **settings):
        path, processor = saved[family]
        extra = {"processing_class": processor} | (extra or {})
        given = {"model": path, "reward": low, "dataset": prompts_with(images), "extra": extra}
        return make_trainer(*chosen, **(given | settings))

    return make


@pytest.fixture
def spied(monkeypatch):
    """The largest error against float64 of each call that scores tokens, and its largest deviation."""
    errors, deviations, score = [], [], statistics.compute_statistics

    def compared(trainer, output, mask, names=None):
        found = score(trainer, output, mask, {*names, *credit.TokenStatistics._fields})
        errors.append(largest_error(trainer, output, mask.bool(), found))
        deviations.append(float(found["deviation"].max()))
        return found

    monkeypatch.setattr(statistics, "compute_statistics", compared)
    return errors, deviations


def largest_error(trainer, output, mask, found):
    errors = [0.0]
    for row in torch.nonzero(mask.any(dim=1)).flatten().tolist():
        expected = score_row(trainer, output, row)
        count = len(expected.deviation)
        for name, values in expected._asdict().items():
            errors += (found[name][row, :count].double() - values).abs()[mask[row, :count]].tolist()
    return max(errors)


@torch.no_grad()
def score_row(trainer, output, row):
    """The statistics of a row's completion by plain float64 forwards, with the images of its prompt's number."""
    prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()]
    completion = output["completion_ids"][row][output["completion_mask"][row].bool()]
    number = int(re.findall(r"(\d+)>", trainer._tokenizer.decode(prompt))[-1])
    inputs = read_images(trainer.processing_class, torch.cat([prompt, completion])[None], number)
    logits = []
    for model, off in ((trainer.model, False), (trainer.ref_model or trainer.model, True)):
        training = model.training
        model.double().eval()
        if off and trainer.ref_model is None:
            with model.disable_adapter():
                logits.append(model(**inputs).logits)
        else:
            logits.append(model(**inputs).logits)
        model.float().train(training)
    before = [each[0, len(prompt) - 1 : -1] / trainer.temperature for each in logits]
    return credit.token_statistics(*before, completion)


def read_images(processor, ids, number):
    inputs = {"input_ids": ids}
    token = getattr(processor.tokenizer, "image_token_id", None) or processor.image_token_id
    if (ids == token).any():
        images = processor.image_processor(pictures(number), return_tensors="pt")
        kind = "mm_token_type_ids" if "image_grid_thw" in images else "token_type_ids"
        inputs |= {kind: (ids == token).long()}
        inputs |= {name: images[name] for name in ("pixel_values", "image_grid_thw") if name in images}
    return inputs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [
        {"statistics_memory_mb": 1e-6},  # a row at a time
        {"num_iterations": 2, "steps_per_generation": 2, "reweight_with_current_policy": True},
        {"extra": {"peft_config": LORA}, "gradient_checkpointing": True},
    ],
    ids=["rows", "reweighted", "lora"],
)
def test_statistics_with_images_equal_a_float64_forward(vision, spied, family, settings):
    trainer = vision(family, "dgpo", per_device_train_batch_size=4, num_generations=2, **settings)
    trainer.train()
    errors, deviations = spied
    assert len(errors) == 3
    assert max(errors) < 1e-5
    assert deviations[-1] > 1e-4


def look(number: int) -> list:
    """Shows pictures."""
    return [{"type": "image", "image": each} for each in pictures(number)]


@pytest.mark.parametrize("budget_mb", [1e-6, 256.0])  # a row at a time, and all of them
def test_images_that_tools_return_belong_to_their_rows(vision, spied, monkeypatch, budget_mb):
    def varied(prompts, completions, **_):
        return [0 if "5" in str(prompt) else i % 2 for i, prompt in enumerate(prompts)]

    settings = {"mask_truncated_completions": True, "dynamic_sampling": "filter"}
    settings |= {"statistics_memory_mb": budget_mb, "reward": varied}
    trainer = vision("qwen25", "dgpo", images=None, **settings)
    trainer.model.train()
    trainer.tools = [look]
    image = trainer.processing_class.image_token_id

    def generate(self, prompts):
        """Every other completion looks at pictures of its own; the second one of these is truncated."""
        ids, ours, masks, shown = [], [], [], []
        for row, prompt in enumerate(prompts):
            number = int(prompt[-1]["content"])
            grids = self.processing_class.image_processor(pictures(number))["image_grid_thw"]
            seen = [
                t
                for grid in grids
                for t in [*self._tokenizer("+")["input_ids"], *[image] * (grid.prod() // 4)]
            ]
            seen, end = seen if row % 2 else [], [tiny_model.EOS]
            said = self._tokenizer(f"{row}{number}" * (1 + row % 3))["input_ids"]
            ids.append(self._tokenizer(f"{number}>")["input_ids"])
            ours.append([*said[:1], *seen, *said, *([] if row == 3 else end)])
            masks.append([1, *[0] * len(seen), *[1] * (len(ours[-1]) - 1 - len(seen))])
            shown.append(pictures(number) if row % 2 else [])
        texts = [[{"role": "assistant", "content": str(len(each))}] for each in ours]
        return ids, ours, masks, texts, None, {}, [each or None for each in shown], shown

    monkeypatch.setattr(GRPOTrainer, "_generate", generate)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.mul_(2.0)
    chosen = np.repeat([7, 5, 3], 4).tolist()
    output = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in chosen])
    assert output["num_images"] == [0, 2] * 6
    assert (output["completion_ids"] == image).any()
    assert not output["completion_mask"][3].any()
    assert output["completion_mask"][4:8].any(dim=1).all()  # the group without differences is attended to,
    assert not output["tool_mask"][4:8].any()  # and leaves the loss
    (error,), (deviation,) = spied
    assert error < 1e-5
    assert deviation > 1e-3


@pytest.mark.parametrize("chosen", [("dgpo",), ("dapo",)])
@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone_trains_and_resamples(vision, spied, family, chosen):
    trainer = vision(family, *chosen, images=None, dynamic_sampling="resample", max_steps=2)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(log) == 2
    assert all(entry["credit/sampling_rounds"] >= 1 for entry in log)
    errors, deviations = spied
    if chosen == ("dgpo",):
        assert max(errors) < 1e-5
        assert deviations[0] == 0.0 < deviations[1]


def test_trls_command_trains_a_model_with_a_processor_on_text(saved, tmp_path, monkeypatch):
    path, processor = saved["gemma3"]
    processor.save_pretrained(path)
    reward = "def low_digits(completions, **_):\n    return [sum(c < '5' for c in e[0]['content']) for e in completions]\n"
    (tmp_path / "my_rewards.py").write_text(reward)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in prompts_with()))
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.format(model=path, data=data, out=tmp_path / "out"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trl, "GRPOTrainer", GRPOTrainer)
    monkeypatch.setattr(sys, "argv", ["credit.adapters.trl", "--config", str(config)])
    command.main()
    (state,) = tmp_path.glob("out/checkpoint-2/trainer_state.json")
    steps = [entry for entry in json.loads(state.read_text())["log_history"] if "grad_norm" in entry]
    assert steps[0]["credit/deviation_max"] == 0.0 < steps[1]["credit/deviation_mean"]


def test_resampling_with_images_is_refused(vision):
    with pytest.raises(
        ValueError, match="'resample' is for prompts of text alone, and the data set has 'images'"
    ):
        vision("qwen25", "grpo", dynamic_sampling="resample")
    rows = [
        {"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "1"}]}
    ]
    within = Dataset.from_dict({"number": [1] * 8}).with_transform(
        lambda batch: {"prompt": [rows for _ in batch["number"]]}
    )
    trainer = vision(
        "qwen25", "grpo", dynamic_sampling="resample", dataset=within, remove_unused_columns=False
    )
    with pytest.raises(ValueError, match="the batch has 'pixel_values'"):
        trainer.train()
    vision("qwen25", "grpo", dynamic_sampling="filter")


def test_records_name_images_in_prompts(vision, tmp_path):
    vision("gemma3", "dgpo", record_steps=1, max_steps=1).train()
    for line in lens.read(tmp_path / "out/credit.jsonl"):
        (message,) = json.loads(line.prompt)
        assert re.fullmatch(r"(<image>){1,2}\d+", message["content"])
        assert len(line.weights) == len(line.tokens)
