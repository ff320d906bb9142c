#!/bin/bash
# One run on all nodes of a Slurm job, through a Ray cluster that lives as long as the job.
#
#   sbatch --nodes=4 deploy/slurm/ray.sh recipe.toml [options of colophon run]

#SBATCH --job-name=colophon
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --output=colophon-%j.log

set -euo pipefail

: "${1:?"usage: sbatch --nodes=N ray.sh RECIPE [options of colophon run]"}"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export RAY_ADDRESS=$head:6379
export RAY_USAGE_STATS_ENABLED=0
# The cluster asks for a token that only this job knows. Without one, anybody on the network could run code in it, and a
# left-over ~/.ray/auth_token would make Colophon send a token that the cluster does not know.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
# How long a node waits for the head, in seconds; by default 30, which a slow file system exceeds.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=120

# The head is on the first node; when its run ends, the cluster ends, and the other nodes within a minute. Without
# --min-nodes the run begins at once and uses nodes as they join; with it, `symmetric-run` ends with 1 whatever the run
# ends with. `symmetric-run` ends every Ray process of this user on its nodes, hence --exclusive. srun does not take the
# number of CPUs from sbatch.
# shellcheck disable=SC2016 # each task expands them
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  bash -c '
    code=0
    ray symmetric-run --address "$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus=0 \
      --object-store-memory=200000000 -- colophon run "$@" --executor ray || code=$?
    # Task 0 is the head. The end of the cluster is a failure of the others to Ray, but not of the run.
    if [[ $SLURM_PROCID -ne 0 ]]; then code=0; fi
    exit "$code"' ray.sh "$@"
