"""The parts of `credit.PolicyLoss`: objectives, ratios, rollout weights, aggregation and checks."""
