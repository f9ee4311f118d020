"""People in the loop: rounds of answers, judgements of them, a reward model and PPO, each from the last policy."""
