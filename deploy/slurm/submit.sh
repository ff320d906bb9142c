#!/bin/bash
# Submits a run as a Slurm job array and, after it, the job that finishes it. Prints both job ids.
#
#   deploy/slurm/submit.sh recipe.toml 64             all 64 shards
#   deploy/slurm/submit.sh recipe.toml 64 3,7-9       these again
#   deploy/slurm/submit.sh recipe.toml 64 1-64%16     at most 16 at a time
#   deploy/slurm/submit.sh recipe.toml 64 1-64 duplicates       `colophon duplicates` in place of `colophon run`
#
# Run it in the environment that has `colophon`, in the directory of the recipe's relative paths: sbatch hands both to
# the jobs. SBATCH_ACCOUNT, SBATCH_PARTITION and other variables of sbatch choose what the scripts leave open.

set -euo pipefail

usage="usage: submit.sh RECIPE SHARDS [TASKS [COMMAND]]"
recipe=${1:?$usage}
shards=${2:?$usage}
tasks=${3:-1-$shards}
command=${4:-run}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A wrong recipe is found here, not in 64 logs.
colophon "$command" "$recipe" --shard "1/$shards" --dry-run --no-probe >/dev/null

array=$(sbatch --parsable --array="$tasks" "$here/array.sh" "$recipe" "$shards" "$command")
# afterany, not afterok: where a task has failed, the job starts, names the shards and fails. With afterok it would wait
# for ever.
finish=$(sbatch --parsable --dependency="afterany:${array%%;*}" "$here/finish.sh" "$recipe" "$command")
echo "array ${array%%;*}, finish ${finish%%;*}"
