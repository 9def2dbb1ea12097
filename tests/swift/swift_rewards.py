"""Reward functions for --external_plugins: dense, so that groups of a random model differ."""

from swift.rewards import ORM, orms


class Digits(ORM):
    """The share of digits."""

    def __call__(self, completions, **columns):
        return [sum(c.isdigit() for c in text) / max(len(text), 1) for text in completions]


class Letters(ORM):
    """The number of the first third of the alphabet's letters, and None for a text without any letter."""

    def __call__(self, completions, **columns):
        return [
            float(sum("a" <= c <= "h" for c in text)) if any(c.isalpha() for c in text) else None
            for text in completions
        ]


class Unscored(ORM):
    """The share of digits, and None for every third completion."""

    def __call__(self, completions, **columns):
        shares = Digits.__call__(self, completions)
        return [None if place % 3 == 2 else share for place, share in enumerate(shares)]


class Constant(ORM):
    """1 for every completion to a prompt whose place is even, and the share of digits for others."""

    def __call__(self, completions, place, **columns):
        shares = Digits.__call__(self, completions)
        return [1.0 if number % 2 == 0 else share for number, share in zip(place, shares, strict=True)]


class Equal(ORM):
    """1 for every completion."""

    def __call__(self, completions, **columns):
        return [1.0] * len(completions)


class Missing(ORM):
    """No completion has a reward."""

    def __call__(self, completions, **columns):
        return [None] * len(completions)


orms |= {"digits": Digits, "letters": Letters, "unscored": Unscored, "constant": Constant}


class ByRequest(ORM):
    """The same for all samples of a trajectory: how many others began before it, counted anew after four."""

    def __init__(self, *positional, **named):
        super().__init__(*positional, **named)
        self.seen = {}

    def __call__(self, completions, request_id, **columns):
        return [float(self.seen.setdefault(each, len(self.seen)) % 4) for each in request_id]


orms |= {"equal": Equal, "missing": Missing, "by_request": ByRequest}
