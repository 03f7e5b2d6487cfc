#!/bin/sh
# The figures of a checkpoint's translations: sh measure.sh CHECKPOINT PREPARED SPLIT OUT TRANSCRIBER [OPTION ...]
#   PREPARED     the folder with flickr8k/ and speech/, as run.sh makes them
#   SPLIT        val while anything is still chosen by the figures; test once, at the end
#   TRANSCRIBER  faster-whisper:base, or faster-whisper:FOLDER
#   OPTION       goes to every evaluation: --limit 150, say
# What the transcriber heard is kept in OUT/heard.jsonl: a rerun hears nothing twice.
set -eu
[ $# -ge 5 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
checkpoint=$1 prepared=$2 split=$3 out=$4 transcriber=$5
shift 5
mkdir -p "$out"
measure() { # TASK DATASET [OPTION ...]
    task=$1 data=$prepared/$2
    shift 2
    skipmodal eval "$checkpoint" --task "$task" --data "$data" --split "$split" --out "$out/$task" "$@" >/dev/null
}
measure img2text flickr8k "$@"
measure img2speech flickr8k --transcriber "$transcriber" --cache "$out/heard.jsonl" "$@"
measure speech2text speech "$@"
measure text2speech speech --transcriber "$transcriber" --cache "$out/heard.jsonl" "$@"
for task in img2text img2speech speech2text text2speech; do
    printf '%s: ' $task
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(r["items"], "items,", ", ".join(f"{k} {v:.1f}" for k, v in r["figures"].items()))' "$out/$task/report.json"
done
