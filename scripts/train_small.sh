#!/usr/bin/env bash
# Trains a model such as `small` from nothing, in the order of the paper, and bundles it in place of the one that the package has; then
# what the rows of two tables compare. Every step goes on where it was stopped when this is run again.
#
#   scripts/train_small.sh [PYTHON]
#
# Needs the extras data and eval. The seeds are those of the configs; docs/experiments/small-model.md says how long such steps took.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
runs=runs/small

[ -d data/emoji/cartoon_clips ] || "$python" -m tooncrafter_jax curate fluent-emoji --out=data/emoji --test=300 --validation=64
[ -d data/bodies128/cartoon_clips ] ||
  "$python" -m tooncrafter_jax curate bodies --out=data/bodies128 --height=128 --width=128 --frames=48 --count=1200 --validation=32
"$python" -m tooncrafter_jax fetch-metric-weights

train() {
  for run in "$@"; do "$python" train.py --config="configs/small.py:$run" --workdir="$runs/$run"; done
}
train autoencoder autoencoder_lpips base rectify decoder_carried decoder_carried_lpips joint sketch together
scripts/bundle_small.sh "$python" "$runs/together/export" "configs/small.py, the runs up to together, in the order of scripts/train_small.sh"

# Rows of the paper's Tables 3 and 4.
train rectify_ii rectify_iii rectify_iv rectify_v rectify_lora
train decoder_full decoder_full_true decoder_without_p3d decoder_without_p3d_true decoder_plain decoder_plain_true
