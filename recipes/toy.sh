#!/bin/sh
# Generated data -> a small trained model -> a picture of an unseen combination spoken.
# About seventeen minutes of one core.
set -eu
[ -d prepared/toy ] || skipmodal prep toy prepared/toy
echo "training a small model on generated data" >&2
skipmodal train toy --run runs/toy --resume auto
photo=$(sed -n 2p prepared/toy/photos/truth.tsv)
skipmodal img2speech "prepared/toy/photos/${photo%%	*}" -m runs/toy -o runs/toy/photo.wav
python - "${photo#*	}" <<'EOF'
import sys
import soundfile
from skipmodal.data.toy import transcribe_tones
print(f"picture: {sys.argv[1]}\nspoken:  {transcribe_tones(*soundfile.read('runs/toy/photo.wav'))}")
EOF
