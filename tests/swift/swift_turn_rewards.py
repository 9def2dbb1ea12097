"""The scheduler of `swift_scheduler.py`, whose tokens earn a tenth of their ids as `token_rewards`."""

from swift.rollout.multi_turn import multi_turns


class Earner(multi_turns["asker"]):
    """Gives its scores by another name."""

    async def on_turn_end(self, infer_request, response_choice, current_turn):
        found = await super().on_turn_end(infer_request, response_choice, current_turn)
        scores = found["rollout_infos"].pop("scores")
        return {"rollout_infos": {"token_rewards": [score / 10 for score in scores]}}


multi_turns["earner"] = Earner
