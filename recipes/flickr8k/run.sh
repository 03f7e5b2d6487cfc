#!/bin/sh
# From photos and recordings to the bundled model: sh run.sh PHOTOS SPEECH RUNS [KEY=VALUE ...]
#   PHOTOS     Flickr8k's folder: photos, captions and the lists of the splits
#   SPEECH     a manifest of recordings, separated by tabs: id, audio, text and split (docs/howto/prepare.md)
#   RUNS       a folder for the prepared data, six trainings and the exported checkpoint
#   KEY=VALUE  goes to every training: train.max_steps=10 to try the command, with RUNS of its own
# The programs flite and espeak-ng speak as other voices, which the model learns to hear; VOICES=MANIFEST in the
# environment adds recordings of further ones.
# The same command goes on where it was stopped. Each training is shared by two processes, for two cores, or has one
# where there is a GPU; PROCESSES=N in the environment says otherwise.
set -eu
[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
photos=$1 speech=$2 runs=$3
shift 3
export OMP_NUM_THREADS=1
gpu='import sys; from skipmodal.device import pick_device; sys.exit(pick_device().type == "cpu")'
processes=${PROCESSES:-$(python3 -c "$gpu" 2>/dev/null && echo 1 || echo 2)}
mkdir -p "$runs"
took() { # how long the stage has run
    echo "$name: $(($(date +%s) - began)) s" | tee -a "$runs/times.txt" >&2
}
stage() { # NAME COMMAND ...: how long it took is kept, also where it failed or was interrupted
    name=$1
    shift
    began=$(date +%s)
    trap took EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    "$@"
    trap - EXIT HUP INT TERM
    took
}
exported() { # the old one stays until the new one is there
    rm -rf "$runs/exported.new"
    skipmodal export "$runs/finding/latest" "$runs/exported.new"
    rm -rf "$runs/exported"
    mv "$runs/exported.new" "$runs/exported"
}
prepared() { # DATASET COMMAND ...
    [ -f "$1/dataset.yaml" ] || { shift; "$@"; }
}
named() { # PATH, so that awk does not take a=b for a setting
    case $1 in /*) echo "$1" ;; *) echo "./$1" ;; esac
}
heard() { # the recordings; their sentences to train on once more, for other voices to speak; the recordings of VOICES
    awk -F '\t' -v OFS='\t' -v here="$(pwd)" '
        { sub(/\r$/, "") }
        FNR == 1 {
            split("", column)
            for (i = 1; i <= NF; i++) column[$i] = i
            if (!column["id"] || !column["audio"] || !column["text"] || !column["split"]) {
                print FILENAME ": must name the columns id, audio, text and split, separated by tabs" >"/dev/stderr"
                exit 1
            }
            folder = (FILENAME ~ "^/" ? "" : here "/") FILENAME
            sub("[^/]*$", "", folder)
            if (NR == 1) print "id", "audio", "text", "split"
            next
        }
        {
            id = $column["id"]; audio = $column["audio"]; text = $column["text"]; split_name = $column["split"]
            print id, (audio ~ "^/" ? "" : folder) audio, text, split_name
        }
        FILENAME == ARGV[1] && split_name == "train" { print id "-again", "", text, split_name }
    ' "$(named "$speech")" ${VOICES:+"$(named "$VOICES")"}
}
voices() { # twice as often by the two that were made from people's recordings
    heard >"$runs/voices.tsv"
    skipmodal prep text-speech "$runs/voices.tsv" "$runs/voices" --max-chars 100 --power 1.25 --speak flite:slt \
        --speak flite:rms --speak flite:kal16 --speak flite:slt --speak flite:rms --speak espeak-ng:en-us \
        --speak espeak-ng:en-us+f2 --speak espeak-ng:en-us+m3 --speak espeak-ng:en-gb+f4 --speak espeak-ng:en-gb+m5
}
train() { # RECIPE RUN FROM [OPTION ...]: FROM is the checkpoint whose weights a new run starts from, or none
    recipe=$1 run=$2 from=$3
    shift 3
    if [ "$from" = none ] || [ -d "$run/latest" ] || [ -d "$run/latest.replaced" ]; then # the latter is left by a crash
        set -- --resume auto "$@"
    else
        set -- --init "$from" "$@"
    fi
    set -- "data.image_text=$runs/flickr8k" "data.text_speech=$runs/speech" "$@"
    set -- skipmodal train "$recipe" "$@" --run "$run"
    if [ "$processes" -gt 1 ]; then
        torchrun --standalone --nproc-per-node "$processes" -m -- "$@"
    else
        "$@"
    fi
}
stage photos prepared "$runs/flickr8k" skipmodal prep image-text "$photos" "$runs/flickr8k" \
    --encoder efficientnet_lite2 --views 2 --licence "Flickr8k: research and education only"
stage recordings prepared "$runs/speech" skipmodal prep text-speech "$speech" "$runs/speech" --max-chars 100 \
    --power 1.25
stage voices prepared "$runs/voices" voices
stage base train base "$runs/base" none "$@"
stage seeing train base_seeing "$runs/seeing" "$runs/base/latest" "$@"
stage captions train base_self_critical "$runs/critical" "$runs/seeing/latest" "$@"
[ -d "$runs/averaged" ] || stage average skipmodal average "$runs/seeing/latest" "$runs/critical/latest" -o "$runs/averaged"
stage speaking train base_speech "$runs/speaking" "$runs/averaged" "$@"
stage hearing train base_hearing "$runs/hearing" "$runs/speaking/latest" "data.text_speech=$runs/voices" "$@"
stage finding train base_finding "$runs/finding" "$runs/hearing/latest" "data.text_speech=$runs/voices" "$@"
stage confidence skipmodal calibrate "$runs/finding/latest" --data "$runs/flickr8k"
stage export exported
