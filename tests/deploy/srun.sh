#!/bin/bash
# A stand-in for Slurm's srun: each task is on a machine of its own, as far as the kernel's namespaces make one: it has
# its own network (10.77.0.1, 10.77.0.2, ... on one bridge), process ids and /tmp/ray. Needs Linux and `ip`.
set -euo pipefail

case $1 in
--network) # all machines; the process ids of this namespace end with this script
  shift
  tasks=$1
  shift
  ip link set lo up
  ip link add bridge type bridge
  ip link set bridge up
  fifos=$(mktemp -d)
  trap 'rm -r "$fifos"' EXIT
  for number in $(seq "$tasks"); do
    mkfifo "$fifos/begun$number" "$fifos/wired$number"
    unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" --machine "$number" "$fifos" "$@" &
    machine=$!
    read -r <"$fifos/begun$number"
    ip link add "port$number" type veth peer name eth0 netns "$machine"
    ip link set "port$number" master bridge up
    echo >"$fifos/wired$number"
    machines+=("$machine")
  done
  worst=0
  for machine in "${machines[@]}"; do
    code=0
    wait "$machine" || code=$?
    if ((code > worst)); then worst=$code; fi
  done
  exit "$worst"
  ;;
--machine)
  number=$2 fifos=$3
  shift 3
  echo >"$fifos/begun$number"
  read -r <"$fifos/wired$number"
  ip link set lo up
  ip addr add "10.77.0.$number/24" dev eth0
  ip link set eth0 up
  mkdir -p /tmp/ray
  mount -t tmpfs tmpfs /tmp/ray
  export SLURM_PROCID=$((number - 1))
  "$@" # not exec: process 1 of a namespace must collect its orphans
  ;;
*)
  while [[ $1 == --* ]]; do
    if [[ $1 == --ntasks=* ]]; then tasks=${1#*=}; fi
    shift
  done
  exec unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc \
    bash "$0" --network "$tasks" "$@"
  ;;
esac
