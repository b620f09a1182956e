#!/usr/bin/env bash
# Starts Slurm on this machine alone, with two nodes that are told to have 16 cores, 64 GB and two GPUs each.
#     tests/cluster/up.sh FOLDER [accounting]
# as root, where Debian's packages slurmctld, slurmd, slurm-client and munge are. With accounting, which needs slurmdbd
# and mariadb-server, too, jobs of an account that the user does not have are refused; root has `root` and `vision`.
# Whatever it writes is in FOLDER, but for links in /etc/slurm: Snakemake's jobs forget SLURM_CONF.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
host=$(hostname -s)
if [ -e /etc/slurm/slurm.conf ]; then
    echo "/etc/slurm/slurm.conf is there: this machine belongs to a cluster" >&2
    exit 1
fi
eventually() { # runs a command until it succeeds
    while ((SECONDS < 60)); do
        "$@" &> /dev/null && return
        sleep 0.1
    done
    echo "Slurm did not come up, this never succeeded: $*" >&2
    tail -n 10 "$folder"/log/*.log >&2
    exit 1
}
nodes_are_idle() {
    [ "$(timeout 5 sinfo -h -N -p gpu -o %T | sort -u)" = idle ]
}
mkdir -p "$folder"/{state,spool,log,pid,dev,munge} /etc/slurm
for gpu in 0 1; do # stand-ins; by this name Slurm sets CUDA_VISIBLE_DEVICES
    [ -e "$folder/dev/nvidia$gpu" ] || mknod "$folder/dev/nvidia$gpu" c 1 3
done

cat > "$folder/slurm.conf" << CONF
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/pid/slurmctld.pid
SlurmdPidFile=$folder/pid/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
Prolog=$folder/prolog
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmdTimeout=15
GresTypes=gpu
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=gpu Nodes=n[1-2] MaxTime=1-0
PartitionName=urgent Nodes=n[1-2] MaxTime=1-0 PriorityTier=10
CONF
if [ "${2:-}" = accounting ]; then
    cat >> "$folder/slurm.conf" << CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$folder/munge/socket
AccountingStorageEnforce=associations
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
CONF
    cat > "$folder/slurmdbd.conf" << CONF
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
PidFile=$folder/pid/slurmdbd.pid
LogFile=$folder/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageUser=root
CONF
    chmod 600 "$folder/slurmdbd.conf"
fi
cat > "$folder/prolog" << PROLOG
#!/bin/sh
echo "\$SLURM_JOB_ID \$SLURM_JOB_GPUS" >> "$folder/gpus.txt" # those that a job gets, before it starts
PROLOG
chmod 755 "$folder/prolog"
echo "NodeName=n[1-2] Name=gpu File=$folder/dev/nvidia[0-1] Flags=nvidia_gpu_env" > "$folder/gres.conf"
: > "$folder/cgroup.conf"
for name in slurm gres cgroup; do
    ln -sf "$folder/$name.conf" "/etc/slurm/$name.conf"
done

[ -s "$folder/munge/key" ] || mungekey -c -k "$folder/munge/key"
munged --force -S "$folder/munge/socket" --key-file "$folder/munge/key" --pid-file "$folder/pid/munged.pid" \
    --log-file "$folder/log/munged.log" --seed-file "$folder/munge/seed"
if [ "${2:-}" = accounting ]; then
    database=$folder/database
    [ -d "$database" ] || mariadb-install-db --no-defaults --datadir="$database" --skip-test-db --user=root > /dev/null
    mariadbd --no-defaults --datadir="$database" --socket="$database/socket" --skip-networking --user=root \
        --pid-file="$folder/pid/mariadbd.pid" > "$folder/log/mariadbd.log" 2>&1 &
    eventually test -S "$database/socket"
    SLURM_CONF=$folder/slurm.conf MYSQL_UNIX_PORT=$database/socket slurmdbd
    eventually sacctmgr list cluster
    for what in "cluster two" "account vision" "user root account=vision"; do
        sacctmgr -iQ add $what > /dev/null || true # it is there already where FOLDER is used again
    done
fi
slurmctld
for node in n1 n2; do
    slurmd -N "$node"
done
eventually nodes_are_idle
