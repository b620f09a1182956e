#!/usr/bin/env bash
# Stops what up.sh started, jobs first.
#     tests/cluster/down.sh FOLDER
set -uo pipefail
folder=$(cd "$1" && pwd)
if [ "$(readlink /etc/slurm/slurm.conf)" = "$folder/slurm.conf" ]; then
    timeout 10 scancel --user "$(id -un)"
    for _ in $(seq 150); do # a job that does not leave is killed after KillWait, five seconds
        [ -z "$(timeout 10 squeue -h)" ] && break
        sleep 0.1
    done
    rm /etc/slurm/{slurm,gres,cgroup}.conf
fi
pids=$(cat "$folder"/pid/*.pid 2> /dev/null)
[ -z "$pids" ] && exit 0
kill $pids 2> /dev/null
for _ in $(seq 100); do # they take a second or two
    kill -0 $pids 2> /dev/null || exit 0
    sleep 0.1
done
kill -9 $pids 2> /dev/null
exit 0
