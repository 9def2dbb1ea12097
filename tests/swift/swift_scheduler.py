"""A multi-turn scheduler for --external_plugins: the user asks once or twice more."""

from swift.rollout.multi_turn import MultiTurnScheduler, multi_turns

END = 2  # <|im_end|>


class Asker(MultiTurnScheduler):
    """Every second trajectory has two turns and the others three; the first token of all but the last is masked.

    Each chosen token is scored by its id, under the name of an array of the user's own.
    """

    def __init__(self, *positional, **named):
        super().__init__(*positional, **named)
        self.lengths, self.scores = {}, {}

    def check_finished(self, infer_request, response_choice, current_turn):
        length = self.lengths.setdefault(infer_request.uuid, 2 + len(self.lengths) % 2)
        return current_turn >= length

    async def on_turn_end(self, infer_request, response_choice, current_turn):
        chosen = list(response_choice.token_ids)
        if not self.check_finished(infer_request, response_choice, current_turn):
            # ms-swift's template closes a turn that was cut off, by a token that its loss counts.
            chosen = chosen[1:] + ([] if chosen[-1] == END else [END])
        known = self.scores.setdefault(infer_request.uuid, [])
        known.extend(map(float, chosen))
        return {"rollout_infos": {"scores": list(known), "trajectory": float(current_turn)}}

    def step(self, infer_request, response_choice, current_turn):
        infer_request.messages.append({"role": "user", "content": f"{current_turn}?"})
        ids = response_choice.token_ids
        mask = [0] + [1] * (len(ids) - 1)
        return {"infer_request": infer_request, "response_token_ids": ids, "response_loss_mask": mask}


multi_turns["asker"] = Asker
