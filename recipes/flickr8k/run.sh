#!/bin/sh
# From photos and recordings to the bundled model: sh run.sh PHOTOS SPEECH RUNS [KEY=VALUE ...]
#   PHOTOS     Flickr8k's folder: photos, captions and the lists of the splits
#   SPEECH     a manifest of recordings: id, audio, text and split (docs/howto/prepare.md)
#   RUNS       a folder for the prepared data, four trainings and the exported checkpoint
#   KEY=VALUE  goes to every training: train.max_steps=10 to try the command
# The same command goes on where it was stopped. Two processes share each training, on two cores as they are; PROCESSES=1
# in the environment makes it one, which a GPU wants.
set -eu
[ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
photos=$1 speech=$2 runs=$3
shift 3
export OMP_NUM_THREADS=1
processes=${PROCESSES:-2}
mkdir -p "$runs"
stage() { # NAME COMMAND ...: how long it took is kept, also of a run that was stopped
    name=$1
    shift
    began=$(date +%s)
    "$@"
    echo "$name: $(($(date +%s) - began)) s" | tee -a "$runs/times.txt" >&2
}
prepared() { # DATASET COMMAND ...
    [ -f "$1/dataset.yaml" ] || { shift; "$@"; }
}
train() { # RECIPE RUN FROM [OPTION ...]: FROM is the checkpoint whose weights a new run starts from, or none
    recipe=$1 run=$2 from=$3
    shift 3
    if [ "$from" = none ] || [ -d "$run/latest" ]; then set -- --resume auto "$@"; else set -- --init "$from" "$@"; fi
    set -- skipmodal train "$recipe" "$@" "data.image_text=$runs/flickr8k" "data.text_speech=$runs/speech" --run "$run"
    if [ "$processes" -gt 1 ]; then
        torchrun --standalone --nproc-per-node "$processes" -m -- "$@"
    else
        "$@"
    fi
}
stage photos prepared "$runs/flickr8k" skipmodal prep image-text "$photos" "$runs/flickr8k" \
    --encoder efficientnet_lite2 --licence "Flickr8k: research and education only"
stage recordings prepared "$runs/speech" skipmodal prep text-speech "$speech" "$runs/speech" --max-chars 100
stage base train base "$runs/base" none "$@"
stage captions train base_self_critical "$runs/critical" "$runs/base/latest" "$@"
[ -d "$runs/averaged" ] || stage average skipmodal average "$runs/base/latest" "$runs/critical/latest" -o "$runs/averaged"
stage voice train base_speech "$runs/voice" "$runs/averaged" "$@"
stage back_translation train base_back_translation "$runs/back_translation" "$runs/voice/latest" "$@"
stage confidence skipmodal calibrate "$runs/back_translation/latest" --data "$runs/flickr8k"
rm -rf "$runs/exported"
stage export skipmodal export "$runs/back_translation/latest" "$runs/exported"
