#!/usr/bin/env bash
# An author writes two environments, a question with one answer and a game of several turns, checks them, and trains on one of them.
# About two minutes on one core.
#
#   bash examples/two_environments.sh [DIR]
set -euo pipefail
out=${1:-runs/example-environments}
mkdir -p "$out" && cd "$out"

# 1. A package for each, to be filled in. (`pip install --editable riddles maze` installs them; here a search path does.)
onelayer env new riddles
onelayer env new maze --turns
export PYTHONPATH="$PWD/riddles:$PWD/maze${PYTHONPATH:+:$PYTHONPATH}"

# 2. Fill them in. The template asks for n + n of large numbers; these are sums that the tiny base solves now and then.
cat >riddles/riddles.py <<'PYTHON'
import random
import re

import gymnasium

SEEDS = {"train": 0, "validation": 1, "test": 2}


def items(split):
    sums = [(a, b, c, d) for a in range(1, 10) for b in range(1, 10) for c in range(1, 10) for d in range(1, 10)]
    random.Random(0).shuffle(sums)
    chosen = sums[SEEDS[split] : 600 : 3]
    ask = "What is {} + {} - {} + {}?\nReason step by step and put the final answer in \\boxed{{}}."
    return [{"question": ask.format(*numbers), "answer": str(numbers[0] + numbers[1] - numbers[2] + numbers[3])} for numbers in chosen]


def grade(response, item):
    numbers = re.findall(r"-?\d+", response)
    return float(numbers[-1:] == [item["answer"]])


gymnasium.register("riddles/Riddles-v0", entry_point="onelayer.envs.graded:GradedEnv", kwargs={"items": items, "grade": grade})
PYTHON

# 3. What is wrong with them? The exit code is 1 where a check fails.
onelayer env check riddles:riddles/Riddles-v0 --items 5
onelayer env check maze:maze/Maze-v0 --items 5

# 4. Play one: the gold actions of an item, and answers of your own.
onelayer env play maze:maze/Maze-v0 --gold
onelayer env play maze:maze/Maze-v0 --item number-83 <<<$'50\n75'

# 5. What do the base and the gold actions solve?
onelayer eval --suite riddles:riddles/Riddles-v0 --items 48 --n 2 --quiet --output base
onelayer eval --suite maze:maze/Maze-v0 --baseline gold --items 8 --n 1 --quiet --output gold

# 6. Train one layer, and measure what it learned. Where no reply was ever right the command says so, and exits with 1.
onelayer train env.id=riddles:riddles/Riddles-v0 trainer.trained_set=layer:3 trainer.lr=1e-3 \
  trainer.steps=5 trainer.prompts_per_step=16 --output layer3
onelayer eval --suite riddles:riddles/Riddles-v0 --patch layer3/patch.safetensors --items 48 --n 2 --quiet --output layer3/test
onelayer compare base layer3 --output comparison
