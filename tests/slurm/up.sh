#!/usr/bin/env bash
# A real Slurm of two nodes on one machine, for tests. As root, with slurm-wlm, munge and iproute2 installed.
#
#   tests/slurm/up.sh [FOLDER]          starts it; then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/up.sh [FOLDER] lvt2     starts the daemon of one node again, after it was killed
#   tests/slurm/down.sh [FOLDER]        ends it
#
# A machine is a set of namespaces: a network with an address of its own, a host name, processes, and a disk (FOLDER/disk is
# FOLDER/lvt1/disk on node lvt1, FOLDER/lvt2/disk on lvt2), so what a job leaves on one node is seen there and nowhere else.
# The controller is a machine of its own, so that no daemon listens on an address of the real one's.
# All files lie in FOLDER; /etc is neither read nor written, and a Slurm or munge that this machine runs is not touched.
set -euo pipefail

site=${1:-/tmp/lvray-slurm}
here=$(dirname "$(readlink -f "$0")")

# Every daemon carries this word; down.sh finds it by that.
marked=(env LVRAY_SLURM_SITE="$site" SLURM_CONF="$site/slurm.conf")

on() {  # machine, command
    "${marked[@]}" nsenter --mount --uts --net --pid --target "$(<"$site/$1/pid")" "${@:2}"
}

configure() {
    cat >"$site/slurm.conf" <<CONF
ClusterName=lvt
SlurmctldHost=lvtctl(10.177.0.3)
SlurmctldPort=27817
SlurmdPort=27818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$site/munge/socket,cred_expire=15
StateSaveLocation=$site/state
SlurmdSpoolDir=$site/%n/spool
SlurmctldPidFile=$site/slurmctld.pid
SlurmdPidFile=$site/%n/slurmd.pid
SlurmctldLogFile=$site/slurmctld.log
SlurmdLogFile=$site/%n/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldTimeout=30
SlurmdTimeout=15
KillWait=60
MinJobAge=3600
JobRequeue=1
GresTypes=gpu
NodeName=lvt1 NodeAddr=10.177.0.1 NodeHostname=lvt1 CPUs=2 RealMemory=1000 Gres=gpu:1
NodeName=lvt2 NodeAddr=10.177.0.2 NodeHostname=lvt2 CPUs=2 RealMemory=1000 Gres=gpu:1
PartitionName=test Nodes=lvt1,lvt2 Default=YES MaxTime=12:00:00 DefaultTime=0:30:00 OverSubscribe=NO
CONF
    # Slurm counts a GPU only by its device file; any will do, nothing opens it.
    echo 'Name=gpu File=/dev/null' >"$site/gres.conf"
    echo 'CgroupPlugin=cgroup/v1' >"$site/cgroup.conf"  # or slurmd asks systemd which
}

start_munged() {
    mkdir -m 755 "$site/munge"
    dd if=/dev/urandom of="$site/munge/key" bs=1024 count=1 status=none
    chmod 400 "$site/munge/key"
    "${marked[@]}" munged --key-file="$site/munge/key" --socket="$site/munge/socket" --pid-file="$site/munge/pid" \
        --log-file="$site/munge/log" --seed-file="$site/munge/seed"
}

start_machine() {  # name, last number of its address
    local name=$1 number=$2 holder first
    mkdir -p "$site/$name/disk" "$site/$name/spool"
    # shellcheck disable=SC2016  # expanded on the node
    "${marked[@]}" setsid unshare --mount --uts --net --pid --fork --kill-child --mount-proc bash -c '
        hostname "$1"
        mount --bind "$2/$1/disk" "$2/disk"
        touch "$2/$1/ready"
        while :; do sleep 3600 & wait; done  # bash as the first process also collects what others leave
    ' bash "$name" "$site" </dev/null &>"$site/$name/log" &
    holder=$!
    for _ in $(seq 100); do [[ -e $site/$name/ready ]] && break; sleep 0.1; done
    first=$(<"/proc/$holder/task/$holder/children")
    echo "${first%% *}" >"$site/$name/pid"
    ip link add "lvtv$number" type veth peer name eth0 netns "$holder"
    ip link set "lvtv$number" master lvtbr up
    on "$name" ip addr add "10.177.0.$number/24" dev eth0
    on "$name" ip link set eth0 up
    on "$name" ip link set lo up
}

if [[ $# -eq 2 ]]; then
    on "$2" slurmd -N "$2"
    exit
fi

"$here/down.sh" "$site"
trap 'tail -n 5 "$site"/slurmctld.log "$site"/lvt*/*log >&2 || true; "$here/down.sh" "$site"' EXIT
mkdir -p "$site/state" "$site/disk"
configure
start_munged
ip link add lvtbr type bridge
ip addr add 10.177.0.254/24 dev lvtbr
ip link set lvtbr up
start_machine lvtctl 3
on lvtctl slurmctld
start_machine lvt1 1
on lvt1 slurmd -N lvt1
start_machine lvt2 2
on lvt2 slurmd -N lvt2

idle() { SLURM_CONF=$site/slurm.conf timeout 5 sinfo --noheader --Node --states=idle 2>/dev/null | wc -l; }
until [[ $(idle) -eq 2 ]]; do
    if ((SECONDS > 60)); then
        echo "up.sh: the nodes did not come up within a minute" >&2
        exit 1
    fi
    sleep 0.5
done
trap - EXIT
