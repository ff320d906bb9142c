#!/bin/bash
# The job after a Slurm job array: checks that no shard is missing, writes the manifest and the report.
#
#   sbatch --dependency=afterany:JOB deploy/slurm/finish.sh recipe.toml
#
# It ends with 1 and names the shards if some have failed, and with 3 if some input is quarantined. With a second argument
# `duplicates`, it runs `colophon duplicates`: first the keys that failed shards have left, then the tables, with 24 bytes
# of memory a document.

#SBATCH --job-name=colophon-finish
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=16G
#SBATCH --time=01:00:00
#SBATCH --output=colophon-finish-%j.log

set -euo pipefail

recipe=${1:?"usage: sbatch --dependency=afterany:JOB finish.sh RECIPE [COMMAND]"}
command=${2:-run}
if [[ $command = run ]]; then command=finish; fi
exec colophon "$command" "$recipe"
