#!/bin/sh
# Trains every model of the paper on the Medical Segmentation Decathlon and writes one table of their scores, as the published
# train_models.sh does:
#
#   sh scripts/train_models.sh MSD_FOLDER OUT                  # everything, one after another; again, to go on where it stopped
#   sh scripts/train_models.sh MSD_FOLDER OUT --list           # the parts, by name
#   sh scripts/train_models.sh MSD_FOLDER OUT --part NAME      # one of them, for a job array; --fetch and --table are parts too
#   sh scripts/train_models.sh DATA OUT --smoke                # the same on tiny data (../shared/data) in minutes
#
# Parts: independent networks, one a task; one shared network; a universal one with each adapter; and the universal network with
# separable adapters, adapted to a task that it never saw, beside a network of its own for that task. Each holds fold 0 out, of
# which the table tells. Tasks that MSD_FOLDER lacks are fetched into it. FLAGS holds more flags for every training, such as
# FLAGS="--device 1 --precision f16". U2SEG names another program than the checkout's.
set -eu
[ $# -ge 2 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
msd=$1 out=$2
shift 2
program=${U2SEG:-$here/../target/release/u2seg}
tasks="Task02_Heart Task03_Liver Task04_Hippocampus Task05_Prostate Task07_Pancreas"
new=Task09_Spleen
recipe="--recipe u2net --base 16 --fold 0"
# several tasks share one patch, as published
several="--unify resize"
smoke= action=all
while [ $# -gt 0 ]; do
    case $1 in
    --smoke)
        smoke=1
        tasks="Task04_Hippocampus Task22_SpinalCord" new=Task21_MSLesion several=
        recipe="--base 4 --steps 8 --patch 16,16,16 --pools 2,2,2 --cache none"
        ;;
    --list) action=list ;;
    --part) action=${2:?--part wants a name} && shift ;;
    --fetch | --table) action=${1#--} ;;
    *)
        echo "train_models: unknown $1" >&2
        exit 2
        ;;
    esac
    shift
done

parts() {
    for task in $tasks $new; do
        echo "independent-$task"
    done
    printf '%s\n' shared universal-separable universal-series universal-parallel adapted
}

# The cases that are held out in the smoke run, where there are too few for folds.
held() {
    [ -n "$smoke" ] || return 0
    printf ' --hold-out'
    for task in "$@"; do
        printf ' %s' "$(ls "$msd/$task/labelsTr" | sed 's/\.nii\.gz$//' | tail -n 1)"
    done
}

# Trains a part, goes on with it, or finds it finished: part OUT TASKS -- FLAGS
train() {
    name=$1 folders= names=
    shift
    while [ "$1" != -- ]; do
        folders="$folders $msd/$1" names="$names $1"
        shift
    done
    shift
    [ ! -e "$out/$name/finished" ] || return 0
    # shellcheck disable=SC2086
    if [ -e "$out/$name/last.safetensors" ]; then
        "$program" "$command" --continue --out "$out/$name"
    else
        "$program" "$command" --out "$out/$name" --data $folders "$@" $(held $names) ${FLAGS:-}
    fi
    : >"$out/$name/finished"
}

part() {
    command=train
    # words of flags are split on purpose
    # shellcheck disable=SC2086
    case $1 in
    independent-*) train "$1" "${1#independent-}" -- --mode independent $recipe ;;
    shared) train "$1" $tasks -- --mode shared $recipe $several ;;
    universal-*) train "$1" $tasks -- --mode universal --adapter "${1#universal-}" $recipe $several ;;
    adapted)
        [ -e "$out/universal-separable/finished" ] ||
            { echo "train_models: adapted wants universal-separable first" >&2; exit 1; }
        command=adapt
        # the network is the universal one's
        own=$(printf '%s' "$recipe" | sed 's/--base [0-9]* *//')
        train "$1" $new -- -m "$out/universal-separable" $own
        ;;
    *)
        echo "train_models: no part $1; --list names them" >&2
        exit 2
        ;;
    esac
}

fetch() {
    [ -z "$smoke" ] || return 0
    for task in $tasks $new; do
        [ -e "$msd/$task/dataset.json" ] || "$program" fetch "$task" -o "$msd"
    done
}

mkdir -p "$out"
case $action in
list) parts ;;
fetch) fetch ;;
table) python3 "$here/train_models.py" "$program" "$out" ;;
all)
    fetch
    parts >"$out/parts"
    while read -r name; do
        part "$name" </dev/null
    done <"$out/parts"
    python3 "$here/train_models.py" "$program" "$out"
    ;;
*) part "$action" ;;
esac
