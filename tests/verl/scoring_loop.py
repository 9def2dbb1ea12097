"""A user's agent loop that also scores each token of a response, as a process reward model would."""

import given_rows
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class ScoringLoop(SingleTurnAgentLoop):
    """verl's loop of one turn, with a number for each token and its place, and a score of the turn."""

    async def run(self, sampling_params, **named):
        output = await super().run(sampling_params, **named)
        scores = [token + place / 16 for place, token in enumerate(output.response_ids)]
        output.extra_fields.update(own_scores=scores, turn_scores=scores[:1])
        rows = given_rows.make_rows([output.response_ids])
        output.extra_fields.update(
            {name: rows[name][0] for name in ("teacher_log_probs", "states", "planning")}
        )
        return output
