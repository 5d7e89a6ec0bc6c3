"""onelayer: layer-wise reinforcement learning of language-model agents, measured honestly."""
