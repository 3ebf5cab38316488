#!/usr/bin/env bash
# Train on one node or on many: run the same line on every node.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/launch_multinode.sh PASSL-TRAIN OPTIONS
       tools/launch_multinode.sh [--check] [--dry-run] -- PASSL-TRAIN OPTIONS

Runs passl-train under python -m paddle.distributed.launch, once on every node.
  --check     run passl-check --dist instead: do all processes find each other?
  --dry-run   check the settings, show the command, and stop

environment, as in PASSL:
  PADDLE_NNODES         number of nodes (1)
  PADDLE_MASTER         HOST:PORT of one of them, the same text everywhere; needed from 2 nodes on
  CUDA_VISIBLE_DEVICES  GPUs of this node, one process each, such as 0,1,2,3
and, where needed:
  PASSL_NPROC           processes of this node where there are no GPUs (1)
  PADDLE_RANK           number of this node, from 0; otherwise the nodes agree among themselves
  POD_IP                address of this node, where its name does not resolve to the right one
  PASSL_LOG_DIR         folder of the launcher's logs (output/launch/<host name>)
  PYTHON                interpreter (python, or python3)

exit status: the launcher's; 75 if a signal ended it: run the same line again to continue
TEXT
}

fail() { printf 'launch_multinode.sh: %s\n' "$*" >&2; exit 2; }
warn() { printf 'launch_multinode.sh: warning: %s\n' "$*" >&2; }

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"

# -- options: ours stand before "--"; without one, all of them are passl-train's ----------------
script=$repo/tools/train.py
first=()
dry_run=false
own=false
for argument in "$@"; do [[ $argument == -- ]] && own=true; done
if [[ $own == true ]]; then
    while [[ $1 != -- ]]; do
        case $1 in
            --check) script=$repo/tools/check.py; first=(--dist) ;;
            --dry-run) dry_run=true ;;
            -h | --help) usage; exit 0 ;;
            *) fail "unknown option $1 before --; see --help" ;;
        esac
        shift
    done
    shift
elif [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
[[ $# -gt 0 || ${#first[@]} -gt 0 ]] || { usage >&2; exit 2; }

# -- settings ----------------------------------------------------------------------------------
python=${PYTHON:-}
if [[ -z $python ]]; then
    python=$(command -v python || command -v python3) || fail "no python on PATH; set PYTHON"
fi
"$python" -c '
import importlib.util, sys
sys.exit(importlib.util.find_spec("paddle") is None)' ||
    fail "$python has no Paddle; activate the environment on this node, or set PYTHON"

nnodes=${PADDLE_NNODES:-1}
[[ $nnodes =~ ^[1-9][0-9]*$ ]] || fail "PADDLE_NNODES is '$nnodes'; give the number of nodes"

master=${PADDLE_MASTER:-}
if [[ -n $master ]]; then
    [[ $master =~ ^([A-Za-z0-9._-]+):([0-9]{1,5})$ ]] ||
        fail "PADDLE_MASTER is '$master'; give HOST:PORT, such as 10.0.0.1:12538"
    master_host=${BASH_REMATCH[1]}
    port=$((10#${BASH_REMATCH[2]}))
    ((port >= 1 && port <= 65535)) || fail "PADDLE_MASTER is '$master'; a port is 1 to 65535"
    # The nodes look for each other over HTTP, which must not go through a proxy.
    export no_proxy="${no_proxy:+$no_proxy,}$master_host"
    export NO_PROXY="${NO_PROXY:+$NO_PROXY,}$master_host"
elif ((nnodes > 1)); then
    fail "PADDLE_NNODES is $nnodes, so PADDLE_MASTER must be set, to the same HOST:PORT on every node"
fi

rank=${PADDLE_RANK:-}
if [[ -n $rank ]]; then
    [[ $rank =~ ^[0-9]+$ ]] || fail "PADDLE_RANK is '$rank'; give this node's number, from 0"
    ((10#$rank < nnodes)) || fail "PADDLE_RANK is $rank, but the $nnodes nodes are numbered from 0"
fi

launch=(--nnodes "$nnodes")
[[ -n $master ]] && launch+=(--master "$master")
[[ -n $rank ]] && launch+=(--rank "$rank")

if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    devices=${CUDA_VISIBLE_DEVICES// /}
    [[ $devices =~ ^[0-9]+(,[0-9]+)*$ ]] ||
        fail "CUDA_VISIBLE_DEVICES is '$CUDA_VISIBLE_DEVICES'; list device numbers such as 0,1, or unset it to train on CPUs"
    repeated=$(tr ',' '\n' <<<"$devices" | sort | uniq -d | tr '\n' ' ')
    [[ -z $repeated ]] || fail "CUDA_VISIBLE_DEVICES lists a device twice: $repeated"
    "$python" - <<'PY' || fail "CUDA_VISIBLE_DEVICES is set, but this Paddle is built for CPUs and its launcher would start GPU processes; unset it, or install a GPU build"
import sys

from passl.distributed.host import installed_versions

sys.exit("(cpu)" in installed_versions()["paddle"])
PY
    export CUDA_VISIBLE_DEVICES=$devices
    launch+=(--devices "$devices")
    processes=$(tr ',' '\n' <<<"$devices" | wc -l)
    where="GPUs $devices"
else
    processes=${PASSL_NPROC:-1}
    [[ $processes =~ ^[1-9][0-9]*$ ]] ||
        fail "PASSL_NPROC is '$processes'; give the number of processes of this node"
    launch+=(--nproc_per_node "$processes")
    where="CPU"
fi

# -- addresses ---------------------------------------------------------------------------------
if [[ -n ${POD_IP:-} ]]; then
    launch+=(--host "$POD_IP")
    # Gloo and NCCL look up the host name unless they are told an interface.
    interface=$(ip -o -4 addr show 2>/dev/null |
        awk -v ip="$POD_IP" '{ split($4, a, "/"); if (a[1] == ip) { print $2; exit } }') || true
    if [[ -n $interface ]]; then
        export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
        export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
    elif [[ -z ${GLOO_SOCKET_IFNAME:-} ]]; then
        warn "no interface with the address POD_IP=$POD_IP was found; set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
    fi
elif ((nnodes > 1)); then
    address=$(getent ahostsv4 "$(hostname)" 2>/dev/null | awk 'NR == 1 { print $1 }') || true
    case ${address:-none} in
        127.* | none)
            [[ ${master_host:-} == 127.* || ${master_host:-} == localhost ]] ||
                warn "the name of this host, $(hostname), resolves to ${address:-nothing}, which other nodes cannot reach; set POD_IP to its address in the network"
            ;;
    esac
fi

log_dir=${PASSL_LOG_DIR:-output/launch/$(hostname)}
launch+=(--log_dir "$log_dir")

# -- run ---------------------------------------------------------------------------------------
command=("$python" -m paddle.distributed.launch "${launch[@]}" "$script" ${first[@]+"${first[@]}"} "$@")
printf 'launch_multinode.sh: node %s of %s, %s process(es) here on %s; logs in %s\n' \
    "${rank:-(any)}" "$nnodes" "$processes" "$where" "$log_dir" >&2
printf 'launch_multinode.sh:' >&2
printf ' %q' "${command[@]}" >&2
printf '\n' >&2
[[ $dry_run == true ]] && exit 0

# The launcher only knows SIGTERM; it answers 15 whatever its workers return.
signalled=
launcher=
# shellcheck disable=SC2317  # the traps call it
stop() {
    signalled=$1
    printf 'launch_multinode.sh: SIG%s: asking the launcher to stop\n' "$1" >&2
    [[ -z $launcher ]] || kill -TERM "$launcher" 2>/dev/null || true
}
# Before the launcher starts: a signal that came in between would end this script alone.
trap 'stop TERM' TERM
trap 'stop INT' INT
trap 'stop USR1' USR1
trap 'stop HUP' HUP # a closed terminal; nohup has it ignored, which no trap changes
"${command[@]}" &
launcher=$!
[[ -z $signalled ]] || kill -TERM "$launcher" 2>/dev/null || true

status=0
wait "$launcher" || status=$?
while kill -0 "$launcher" 2>/dev/null; do # a signal interrupted the wait
    status=0
    wait "$launcher" || status=$?
done
if [[ -n $signalled && $status -ne 0 ]]; then
    printf 'launch_multinode.sh: ended by SIG%s; the same line continues from the last checkpoint\n' \
        "$signalled" >&2
    exit 75
fi
if ((status != 0)); then
    printf 'launch_multinode.sh: exit status %s; the reason is in %s/workerlog.* of the node and rank that failed first\n' \
        "$status" "$log_dir" >&2
fi
exit "$status"
