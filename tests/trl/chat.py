"""Conversations for TRL's real tool loop: a call and answers that are put into the model's mouth."""

import random

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'


def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: one number
        b: the other
    """
    return a + b


class Adder:
    """An environment that rewards every call, of which it alone knows."""

    made = 0

    def __init__(self):
        Adder.made += 1
        self.worth = Adder.made

    def reset(self, **_):
        self.earned = []

    def add(self, a: int, b: int) -> int:
        """Adds.

        Args:
            a: one number
            b: the other
        """
        self.earned.append((a + b) * self.worth / 8)
        return a + b

    def get_reward(self):
        return self.earned


class AsyncAdder(Adder):
    async def get_reward(self):
        return self.earned


def scripted(trainer):
    """Every other completion calls the tool before it answers."""
    rng = random.Random(0)

    def single_turn(prompt_ids, *_, **__):  # releases of TRL pass different things beside
        first = "<tool_response>" not in trainer._tokenizer.decode(prompt_ids[0])
        answers = ["".join(rng.choices("0123456789", k=rng.randint(3, 9))) + "<|im_end|>" for _ in prompt_ids]
        texts = [CALL if first and row % 2 else text for row, text in enumerate(answers)]
        return trainer._tokenizer(texts, add_special_tokens=False)["input_ids"], None

    return single_turn
