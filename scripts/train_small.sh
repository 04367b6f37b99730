#!/usr/bin/env bash
# Trains the model `small` from nothing, in the order of the paper, and bundles it. Every step goes on where it was stopped when this
# is run again.
#
#   scripts/train_small.sh [PYTHON]
#
# Needs the extras data and eval. The seeds are those of the configs; docs/small-model.md says how long each step took.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
runs=runs/small

train() { # CONFIG NAME
  "$python" train.py --config="configs/small/$1" --workdir="$runs/$2"
}

[ -d data/emoji/cartoon_clips ] || "$python" -m tooncrafter_jax curate fluent-emoji --out=data/emoji --test=300 --validation=64
[ -d data/bodies128/cartoon_clips ] ||
  "$python" -m tooncrafter_jax curate bodies --out=data/bodies128 --height=128 --width=128 --frames=48 --count=1200 --validation=32
"$python" -m tooncrafter_jax fetch-metric-weights

train autoencoder.py autoencoder
train autoencoder.py:lpips autoencoder_lpips
train base.py base
for variant in iv ii iii v; do train "rectify.py:$variant" "rectify_$variant"; done
train rectify.py:long rectify_long
train rectify.py:128 rectify
for variant in full without_p3d plain; do
  train "decoder.py:$variant" "decoder_$variant"
  train "decoder.py:${variant}_true" "decoder_${variant}_true"
done
train decoder.py:full_16 decoder_full_16
train decoder.py:full_lpips decoder_full_lpips
train decoder.py:full_joint joint
train sketch.py sketch
train sketch.py:pictures sketch_pictures
train sketch.py:sparse sketch_sparse
train sketch.py:together together
train sketch.py:long together_long
scripts/bundle_small.sh "$python" "$runs/together_long/export"
