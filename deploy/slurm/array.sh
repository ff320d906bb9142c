#!/bin/bash
# One task of a Slurm job array: a shard of a run, in local processes, without Ray.
#
#   sbatch --array=1-64 deploy/slurm/array.sh recipe.toml 64
#
# `submit.sh` submits it together with `finish.sh`. The second argument is the number of shards, also where the array
# holds only some of them: SLURM_ARRAY_TASK_COUNT would change with it, and with it every share. With a third argument
# `duplicates`, it is a shard of `colophon duplicates`.

#SBATCH --job-name=colophon
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=colophon-%A_%a.log

set -euo pipefail

recipe=${1:?"usage: sbatch --array=1-SHARDS array.sh RECIPE SHARDS [COMMAND]"}
shards=${2:?"usage: sbatch --array=1-SHARDS array.sh RECIPE SHARDS [COMMAND]"}
command=${3:-run}

# 3: some input is quarantined. The shard is complete, and finish.sh reports the input.
code=0
colophon "$command" "$recipe" --shard "$SLURM_ARRAY_TASK_ID/$shards" || code=$?
if [[ $code -eq 3 ]]; then code=0; fi
exit "$code"
