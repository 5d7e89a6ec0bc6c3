#!/usr/bin/env bash
# A researcher compares algorithms in several domains: studies, their comparison and a leaderboard. About two minutes on one core.
#
#   bash examples/compare_algorithms.sh [DIR]
#
# The overrides make it small; leave them out for figures that mean something, and add `alfworld` where ALFWorld is installed.
set -euo pipefail
out=${1:-runs/example-algorithms}

small=(trainer.steps=6 trainer.prompts_per_step=8 trainer.group_size=8 eval.items=48 eval.n=2 study.base_samples=2)

# 1. What will be done, before anything is.
onelayer study math trainer.algorithm=grpo "${small[@]}" --dry-run --output "$out/plan"

# 2. Each algorithm in each domain: base, all parameters and layer 3, measured on the same held-out items.
onelayer study math code 'study.algorithms=[grpo,rloo]' "${small[@]}" --quiet --output "$out/studies"

# 3. What each study found; compare.html in the same directory shows them side by side.
onelayer runs show "$out/studies/math-grpo"
onelayer runs list "$out/studies"

# 4. One of the comparisons as JSON, for a script of your own.
onelayer compare "$out/studies/math-grpo" "$out/studies/math-rloo" --output "$out/comparison" --json >"$out/comparison.json"

# 5. Everything as a static site.
onelayer leaderboard "$out/studies" --output "$out/site"
