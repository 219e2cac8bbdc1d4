#!/usr/bin/env bash
# Ends the two-node Slurm that up.sh started, also what an earlier run left that was killed, and removes its folder.
#
#   tests/slurm/down.sh [FOLDER]
#
# Its daemons are known by a word in their environment, so nothing else can be hit, and no file of process ids can be
# out of date. The first process of a node takes everything on the node with it: the kernel sees to that.
set -euo pipefail

site=${1:-/tmp/lvray-slurm}

ours() {
    local folder
    for folder in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$folder/environ" | grep -qxF "LVRAY_SLURM_SITE=$site"; then
            echo "${folder#/proc/}"
        fi
    done 2>/dev/null
}

for _ in $(seq 50); do
    found=$(ours)
    [[ -n $found ]] || break
    # shellcheck disable=SC2086  # a list of numbers
    kill -KILL $found 2>/dev/null || true
    sleep 0.1
done
if [[ -n $found ]]; then
    echo "down.sh: these daemons of $site do not end: $found" >&2
    exit 1
fi
if ip link show lvtbr &>/dev/null; then ip link del lvtbr; fi  # the nodes' own links went with their namespaces
rm -rf "$site"
