#!/bin/sh
# Trains every model of the paper on the Medical Segmentation Decathlon and writes one table of their scores, as the published
# train_models.sh does (docs/PAPER.md says what equals it):
#
#   sh scripts/train_models.sh MSD_FOLDER OUT                  # everything, one after another; again, to go on where it stopped
#   sh scripts/train_models.sh MSD_FOLDER OUT --list           # the parts, by name
#   sh scripts/train_models.sh MSD_FOLDER OUT --part NAME      # one of them, for a job array; --fetch and --table are parts too
#   sh scripts/train_models.sh MSD_FOLDER OUT --splits FILE    # hold out the cases of the published fold_splits.json, fold0
#   sh scripts/train_models.sh DATA OUT --smoke                # the same on tiny data (../shared/data) in minutes
#
# Parts: independent networks, one a task; one shared network; a universal one with each adapter; the shared and the universal
# network adapted to a task that they never saw. Each holds fold 0 out, of which the table tells. Tasks that MSD_FOLDER lacks are
# fetched into it. FLAGS holds more flags for every training, such as FLAGS="--device 1 --precision f16". U2SEG names another
# program than the checkout's, U2SEG_PYTHON another python3 (the standard library will do).
set -eu
[ $# -ge 2 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
msd=$1 out=$2
shift 2
program=${U2SEG:-$here/../target/release/u2seg}
python=${U2SEG_PYTHON:-python3}
tasks="Task02_Heart Task03_Liver Task04_Hippocampus Task05_Prostate Task07_Pancreas"
new=Task09_Spleen
# as published: no weights are chosen by the held-out cases, which the table tells of
recipe="--recipe u2net --validate-every 0"
size="--base 16"
# several tasks share one patch, as published
several="--unify resize"
smoke= splits= action=all
while [ $# -gt 0 ]; do
    case $1 in
    --smoke)
        smoke=1
        tasks="Task04_Hippocampus Task22_SpinalCord" new=Task21_MSLesion
        recipe="$recipe --steps 12 --patch 16,16,16 --pools 2,2,2 --batch 2"
        size="--base 4"
        ;;
    --list) action=list ;;
    --part) action=${2:?--part wants a name} && shift ;;
    --splits) splits=${2:?--splits wants a file} && shift ;;
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
    printf '%s\n' shared universal-separable universal-series universal-parallel adapted-shared adapted-universal-separable
}

# Which cases of these tasks are held out, as flags: those of the published splits; fold 0; or in the smoke run, whose tasks have too
# few cases for folds, the last one of each.
held() {
    if [ -n "$splits" ]; then
        printf '%s' --hold-out
        "$python" "$here/train_models.py" held "$splits" "$@"
    elif [ -n "$smoke" ]; then
        printf '%s' --hold-out
        for task in "$@"; do
            for label in "$msd/$task/labelsTr"/*.nii.gz; do :; done
            printf ' %s' "$(basename "$label" .nii.gz)"
        done
    else
        printf '%s' '--fold 0'
    fi
}

# Trains a part, goes on with it, or finds it finished: train COMMAND PART TASKS -- FLAGS
train() {
    command=$1 name=$2 folders= names=
    shift 2
    while [ "$1" != -- ]; do
        folders="$folders $msd/$1" names="$names $1"
        shift
    done
    shift
    [ ! -e "$out/$name/finished" ] || return 0
    cases=$(held $names)
    cache=
    # the parts of a smoke run share what they prepare, and leave nothing in the user's folders
    [ -z "$smoke" ] || cache="--cache $out/cases"
    echo "train_models: $name" >&2
    # words of flags are split on purpose
    # shellcheck disable=SC2086
    if [ -e "$out/$name/last.safetensors" ]; then
        "$program" "$command" --continue --out "$out/$name" $cache
    else
        "$program" "$command" --out "$out/$name" --data $folders "$@" $recipe $cases $cache ${FLAGS:-}
    fi
    : >"$out/$name/finished"
}

part() {
    # words of flags are split on purpose
    # shellcheck disable=SC2086
    case $1 in
    independent-*) train train "$1" "${1#independent-}" -- --mode independent $size ;;
    shared) train train "$1" $tasks -- --mode shared $size $several ;;
    universal-*) train train "$1" $tasks -- --mode universal --adapter "${1#universal-}" $size $several ;;
    adapted-*)
        # the size of the network is that of the model
        model=${1#adapted-}
        [ -e "$out/$model/finished" ] || { echo "train_models: $1 wants $model first" >&2; exit 1; }
        train adapt "$1" $new -- -m "$out/$model"
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

table() {
    "$python" "$here/train_models.py" table "$program" "$out"
}

mkdir -p "$out"
case $action in
list) parts ;;
fetch) fetch ;;
table) table ;;
all)
    fetch
    for name in $(parts); do
        part "$name" </dev/null
    done
    table
    ;;
*) part "$action" ;;
esac
