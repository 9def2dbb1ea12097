"""A user's agent loop of three turns, whose rewards lie on tokens."""

from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

FAR = 9.0  # by so much, in nats, the engine's log-prob of a token differs, so that verl rejects it


class TurnsOutput(AgentLoopOutput):
    """An output with the reward of each turn on its last token, beside the outcome's on the last of all."""

    def as_dict(self):
        output, turns = super().as_dict(), self.extra_fields["own_turns"]
        for turn in set(turns) - {0}:
            columns = [column for column, own in enumerate(turns) if own == turn]
            output["rm_scores"][columns[-1]] += self.response_ids[columns[0]] / 8
        return output


class TurnsLoop(SingleTurnAgentLoop):
    """Three turns of up to three tokens; in between a tool repeats the first token.

    The second token of the first turn and, if it has three, the last one of the second are as if another
    policy had sampled them. own_turns numbers the tokens by turn, from 1; those of tools have 0.
    """

    async def run(self, sampling_params, **named):
        short = {**sampling_params, "max_tokens": 3}
        output = TurnsOutput(**dict(await super().run(short, **named)))
        turns = [1] * len(output.response_ids)
        for turn in (2, 3):
            self.append(output, output.response_ids[:1], [0.0], 0)
            prompt = output.prompt_ids + output.response_ids
            more = await self.server_manager.generate(uuid4().hex, prompt_ids=prompt, sampling_params=short)
            self.append(output, more.token_ids, more.log_probs, 1)
            turns += [0] + [turn] * len(more.token_ids)
        rejected = [False] * len(turns)
        for columns in ([c for c, own in enumerate(turns) if own == turn] for turn in (1, 2)):
            place = 1 if columns[0] == 0 else 2
            if len(columns) > place:
                rejected[columns[place]] = True
                output.response_logprobs[columns[place]] -= FAR
        output.extra_fields.update(own_turns=turns, own_rejected=rejected, tool_rewards=[0.5, 0.5])
        return output

    def append(self, output, ids, log_probs, own):
        output.response_ids = output.response_ids + list(ids)
        output.response_mask = output.response_mask + [own] * len(ids)
        output.response_logprobs = output.response_logprobs + list(log_probs)
