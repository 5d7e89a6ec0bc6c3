#!/usr/bin/env bash
# A practitioner trains one layer of a model in a directory. About two minutes on one core with the default model.
#
#   bash examples/own_model.sh [MODEL_DIR [DIR]]
#
# MODEL_DIR is a directory that transformers loads. Without it: a copy of the tiny base that comes with the package.
set -euo pipefail
out=${2:-runs/example-model}
model=${1:-$out/model}
mkdir -p "$out"
[ -e "$model" ] || cp -r "$(python -c 'from onelayer.agents import tiny; print(tiny.PATHS["tiny"])')" "$model"

# 1. Does the model fit, and what would be trained? Nothing is trained yet.
onelayer train math model.path="$model" trainer.trained_set=layer:2 --dry-run

# 2. The base on held-out items.
onelayer eval --suite arithmetic --model "$model" --items 64 --n 2 agent.max_tokens=40 --quiet --output "$out/base"

# 3. One layer, trained for four steps, then for two more. The exit code is 1 where the model never solved an item, so that nothing was learned.
onelayer train math model.path="$model" trainer.trained_set=layer:2 trainer.lr=1e-3 trainer.steps=4 trainer.prompts_per_step=16 --output "$out/layer2"
onelayer train --resume "$out/layer2" trainer.steps=6

# 4. The same items again, with the layer that was trained. What changed?
onelayer eval --suite arithmetic --model "$model" --patch "$out/layer2" --items 64 --n 2 agent.max_tokens=40 --quiet --output "$out/layer2/test"
onelayer compare "$out/base" "$out/layer2" --output "$out/comparison"
onelayer runs diff "$out/base" "$out/layer2/test"

# 5. The trained model as a directory of its own, for transformers, vLLM or a server; and an archive that others can verify.
onelayer export --run "$out/layer2" --output "$out/exported"
onelayer submit "$out/layer2" --output "$out/submission.tar"
