# shellcheck shell=bash disable=SC2154,SC2034,SC2317
# What bench starts, mounts and attaches, and how it ends. Sourced by bench; the state is bench's.

# ---- processes and mounts ------------------------------------------------------------------------

# Each server has a session of its own: Ctrl-C reaches this script alone, which takes them down in order.
serve() {
  local name=$1
  shift
  : >"$work/$name.log" # else what the last one said would be taken for its words
  setsid "$@" >"$work/$name.log" 2>&1 </dev/null &
  servers+=($!)
}

alive() { kill -0 "$1" 2>/dev/null; }

# Until the command succeeds, 10 s at most, and only while the process lives.
await() {
  local pid=$1 tries=500
  shift
  until "$@" >/dev/null 2>&1; do
    alive "$pid" && [ $((tries -= 1)) -gt 0 ] || return 1
    sleep 0.02
  done
}

has_size() { [ "$(timeout 2 stat -c %s "$1")" = "$2" ]; }
is_mounted() { grep -qF " $1 " /proc/self/mountinfo; }

unmount() {
  is_mounted "$1" || return 0
  if has fusermount3 && fusermount3 -u "$1" 2>/dev/null; then return 0; fi
  umount -i "$1" 2>/dev/null || fusermount3 -uz "$1" 2>/dev/null || umount -il "$1" 2>/dev/null
}

# Ends a server, and forgets it: its number may be another's soon.
stop() {
  local pid=$1 tries=200 i
  kill "$pid" 2>/dev/null
  while alive "$pid" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.025; done
  kill -9 "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  for i in "${!servers[@]}"; do
    if [ "${servers[i]}" = "$pid" ]; then unset "servers[i]"; fi
  done
}

# Mounts first, the last one first, then their servers, tgtd last: nobody waits for a target that is gone.
cleanup() {
  local i mountpoint pid
  trap '' INT TERM HUP
  # what is under a loop device would be written out, however long that takes: let it fail instead
  [ -z "$loop" ] || abandon "$serving"
  end_job
  if [ -n "$work" ]; then
    awk -v d="$work/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac |
      while read -r mountpoint; do unmount "$mountpoint"; done
    detach_loop
    # a lunfs that went to the background is known by its mountpoint only
    for pid in $(pgrep -f "$work/mount"); do stop "$pid"; done
  fi
  for i in $(printf '%s\n' "${!servers[@]}" | tac); do
    if [ "$i" = 0 ]; then # tgtd with targets does not heed SIGTERM
      kill -9 "${servers[0]}" 2>/dev/null
      wait "${servers[0]}" 2>/dev/null
    fi
    [ -z "$i" ] || stop "${servers[i]}"
  done
  [ -z "$work" ] || rm -rf --one-file-system "$work"
  [ -z "$memory" ] || rm -rf "$memory"
}

# ---- a command with a time limit -----------------------------------------------------------------

# in_time SECONDS COMMAND...: sets elapsed, in microseconds. Status 124: it took longer, and still
# runs: end_job ends it, and waits for it.
in_time() {
  local limit=$1 start=0 end result
  shift
  [ -n "$ended" ] || { mkfifo "$work/ended" && exec {ended}<>"$work/ended"; }
  while read -rt 0 -u "$ended"; do read -ru "$ended" _; done
  start=${EPOCHREALTIME/./}
  # shellcheck disable=SC2016
  setsid bash -c '"$@" 3>&-; echo "$? $EPOCHREALTIME" >&3' _ "$@" \
    >"$work/job.out" 2>"$work/job.log" </dev/null 3>&"$ended" &
  job=$!
  if read -rt "$limit" -u "$ended" result end; then
    elapsed=$((${end/./} - start))
    end_job
    return "$result"
  fi
  elapsed=$((${EPOCHREALTIME/./} - start))
  return 124
}

# What waits for a disk dies when that has answered.
end_job() {
  local tries=600
  [ -n "$job" ] || return 0
  kill -9 -- "-$job" 2>/dev/null
  wait "$job" 2>/dev/null
  # shellcheck disable=SC2009
  while ps -s "$job" -o stat= | grep -q '^[^Z]' && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
  job=''
}

# ---- a file system on a loop device --------------------------------------------------------------

# attach_loop FILE: mounts the ext4 in it at $work/ext4
attach_loop() {
  mkdir -p "$work/ext4"
  loop=$(losetup -f --show "$1" 2>"$work/job.log") || { loop=''; return 1; }
  mount -t ext4 "$loop" "$work/ext4" 2>"$work/job.log"
}

detach_loop() {
  [ -n "$loop" ] || return 0
  unmount "$work/ext4"
  losetup -d "$loop" 2>/dev/null
  loop=''
}

loops_work() {
  [ "$(id -u)" = 0 ] && [ -e /dev/loop-control ] && has losetup && has mkfs.ext4 && losetup -f >/dev/null 2>&1
}

# ---- the target ----------------------------------------------------------------------------------

tgt() { TGT_IPC_SOCKET=$work/tgt tgtadm -C 1 --lld iscsi "$@"; }
port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# fits COPIES: the largest of the sizes, in MiB, that memory has room for so many times; else status 1.
fits() {
  local copies=$1 mib shm ram
  shift
  shm=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
  ram=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
  for mib; do
    if [ "${shm:-0}" -gt $((copies * mib * 1100)) ] && [ "$ram" -gt $((copies * mib * 2048)) ]; then
      echo "$mib"
      return 0
    fi
  done
  return 1
}

# A folder in memory, or in $work.
make_store() {
  [ -n "$memory" ] || memory=$(mktemp -d /dev/shm/lunfs-bench.XXXXXX)
  store=$memory
}

# A GiB of memory with its pages in place; less where there is less; at worst a file in $work.
make_backing_file() {
  local mib
  if mib=$(fits 1 1024 256); then make_store; else mib=256; fi
  size=$((mib << 20))
  backing=$store/lun
  head -c "$size" /dev/zero >"$backing" || die "no room for a LUN of $mib MiB"
}

start_target() {
  local tries tgtd
  has tgtd || die "needs tgtd (Debian: apt install tgt)"
  for tries in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 12000))
    port_is_open "$port" && continue
    serve tgtd env TGT_IPC_SOCKET="$work/tgt" tgtd -f -C 1 --iscsi "portal=127.0.0.1:$port"
    tgtd=$!
    await "$tgtd" port_is_open "$port" && await "$tgtd" tgt --op show --mode sys && break
    stop "$tgtd"
    port=
  done
  [ -n "$port" ] || die "tgtd does not start: $(tail -n 1 "$work/tgtd.log")"
}

# make_target TID IQN [BACKING-FILE]
make_target() {
  tgt --op new --mode target --tid "$1" --targetname "$2" &&
    tgt --op bind --mode target --tid "$1" --initiator-address ALL || return 1
  [ -z "$segment" ] ||
    tgt --op update --mode target --tid "$1" --name MaxRecvDataSegmentLength --value "$segment" ||
    die "tgtd does not take MaxRecvDataSegmentLength=$segment"
  [ $# -lt 3 ] || make_lun "$1" 1 "$3"
}

make_lun() { tgt --op new --mode logicalunit --tid "$1" --lun "$2" --backing-store "$3"; }

# ---- the peers -----------------------------------------------------------------------------------

installed() {
  case $1 in
  raw) [ -x "$build/tests/bench/rawload" ] ;;
  lunfs) [ -x "$build/lunfs" ] ;;
  qemu) has qemu-storage-daemon && qemu-storage-daemon --help | grep -q 'type=[]]fuse' ;;
  nbdfuse) has nbdfuse && has qemu-nbd ;;
  esac
}

# The first of them that are there; says what is missing.
those_installed() {
  local peer found=
  for peer; do
    if installed "$peer"; then
      found+=" $peer"
    else
      case $peer in
      raw | lunfs) failed "$peer is not built" ;;
      *) say "$peer: skipped, not installed" ;;
      esac
    fi
  done
  those=${found# }
}

# start_PEER PORTAL IQN BYTES: serves its LUN 1, of that size, as file[PEER] by the processes pids[PEER].
start_lunfs() {
  mkdir -p "$work/lunfs"
  serve lunfs "$build/lunfs" "iscsi://$1/$2/1" "$work/lunfs" -f ${lunfs_options:+-o "$lunfs_options"}
  pids[lunfs]=$!
  file[lunfs]=$work/lunfs/lun1.img
  await "$!" has_size "${file[lunfs]}" "$3"
}

start_qemu() {
  : >"$work/qemu.img"
  serve qemu qemu-storage-daemon \
    --blockdev "driver=iscsi,node-name=lun,transport=tcp,portal=$1,target=$2,lun=1,initiator-name=$initiator$qemu_cache" \
    --export "type=fuse,id=export,node-name=lun,mountpoint=$work/qemu.img,writable=on"
  pids[qemu]=$!
  file[qemu]=$work/qemu.img
  await "$!" has_size "${file[qemu]}" "$3"
}

start_nbdfuse() {
  : >"$work/nbdfuse.img"
  # shellcheck disable=SC2086
  serve qemu-nbd qemu-nbd -t -f raw $nbd_cache -e 8 -k "$work/nbd" "iscsi://$1/$2/1"
  pids[nbdfuse]=$!
  await "$!" test -S "$work/nbd" || return 1
  serve nbdfuse nbdfuse "$work/nbdfuse.img" --unix "$work/nbd"
  pids[nbdfuse]+=" $!"
  file[nbdfuse]=$work/nbdfuse.img
  await "$!" has_size "${file[nbdfuse]}" "$3"
}

# What it holds is written out first.
stop_peer() {
  local pid backwards=
  case $1 in
  lunfs) timeout -k 5 120 "$build/lunfs" umount "$work/lunfs" >/dev/null 2>&1 || unmount "$work/lunfs" ;;
  *) unmount "$work/$1.img" ;;
  esac
  for pid in ${pids[$1]:-}; do backwards="$pid $backwards"; done
  for pid in $backwards; do stop "$pid"; done
  pids[$1]=''
  rm -f "$work/nbd"
}

# Nothing is written out any more: who uses its file sees it fail.
abandon() {
  local pid
  for pid in ${pids[$1]:-}; do
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
}

last_words() { cat "$work/$1.log" "$work/qemu-nbd.log" 2>/dev/null | tail -n 1; }
