# shellcheck shell=bash disable=SC2154,SC2034,SC2317
# Table 1: O_DIRECT on loopback. All FUSE files are driven by the same fio, with libaio. And the memory
# and the mount time of lunfs. Sourced by bench; the state is bench's.

readonly many=100       # LUNs of the second target, for the mount time
readonly split=262144   # what lunfs makes of a large request

# name, pattern of fio, bytes, depth, what is counted, the goals lunfs/raw and lunfs/qemu, in words
readonly all_jobs='
r4k1   randread  4096    1  iops 0.80 1.05 | 4k random read, depth 1
r4k32  randread  4096    32 iops 0.90 1.25 | 4k random read, depth 32
w4k32  randwrite 4096    32 iops 0.90 1.00 | 4k random write, depth 32
r1m4   read      1048576 4  mbs  0.80 1.25 | 1M sequential read, depth 4
w1m4   write     1048576 4  mbs  0.80 1.00 | 1M sequential write, depth 4
r128k8 read      131072  8  mbs  0.90 1.25 | 128k sequential read, depth 8'
readonly direct_jobs="r4k1 r4k32 w4k32 r1m4 w1m4 r128k8 mount"

list_direct() {
  say "Table 1, O_DIRECT:"
  awk -F' [|] ' 'NF { sub(/ .*/, "", $1); printf "  %-8s %s\n", $1, $2 }' <<<"$all_jobs"
  printf '  %-8s %s\n' mount "time to mount 1 and $many LUNs"
}

# Reads and writes one LUN with all peers up.
direct_table() {
  local peer backing size idle peers=${peers//local/} runs=${runs:-3}
  local qemu_cache=,cache.direct=on nbd_cache=--cache=none
  make_backing_file
  make_target 1 "$iqn" "$backing" || die "tgtd does not take the LUN"
  start_peers
  say "$((size >> 20)) MiB in $([ -n "$memory" ] && echo memory || echo "$work"), tgtd with MaxRecvDataSegmentLength ${segment:-as it comes (8192)}," \
    "$(nproc) CPUs at load $(cut -d' ' -f1 /proc/loadavg); $seconds s a job, medians of $runs; IOPS or MB/s:"
  if wants "$peers" lunfs; then
    sleep 1
    idle=$(memory_of "${pids[lunfs]}" VmRSS)
  fi
  run_jobs
  print_direct
  wants "$peers" lunfs && report_lunfs
  for peer in $peers; do
    [ "$peer" = raw ] || [ -z "${pids[$peer]:-}" ] || stop_peer "$peer"
  done
  tgt --op delete --mode target --tid 1 --force
  rm -f "$backing"
}

start_peers() {
  local peer those running=
  # shellcheck disable=SC2086
  those_installed $peers
  for peer in $those; do
    if [ "$peer" = raw ] || "start_$peer" "127.0.0.1:$port" "$iqn" "$size"; then
      running+=" $peer"
    else
      failed "$peer did not start: $(last_words "$peer")"
      stop_peer "$peer"
    fi
  done
  peers=${running# }
}

# ---- one job, one peer ---------------------------------------------------------------------------

# User and system time of processes, in clock ticks. The name in stat may hold blanks and brackets.
ticks() {
  local pid stat sum=0
  for pid; do
    read -r stat <"/proc/$pid/stat" 2>/dev/null || continue
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    sum=$((sum + ${12} + ${13}))
  done
  echo "$sum"
}

# What is printed: ios=N bytes=N seconds=S cpu=S
run_raw() {
  local pattern=$1 bytes=$2 depth=$3
  shift 3
  case $pattern in rand*) set -- --random "$@" ;; *) set -- --sequential "$@" ;; esac
  case $pattern in *write) set -- --write "$@" ;; *) set -- --read "$@" ;; esac
  "$build/tests/bench/rawload" "$@" --bs "$bytes" --depth "$depth" --seconds "$seconds" \
    "iscsi://127.0.0.1:$port/$iqn/1"
}

run_fio() {
  local peer=$1 pattern=$2 bytes=$3 depth=$4 before after
  # shellcheck disable=SC2086
  before=$(ticks ${pids[$peer]})
  (cd "$work" && timeout --foreground -k 5 $((seconds + 60)) \
    fio --name=bench --filename="${file[$peer]}" --allow_file_create=0 --fallocate=none \
    --direct=1 --ioengine=libaio --rw="$pattern" --bs="$bytes" --iodepth="$depth" --size="$size" \
    --time_based --runtime="$seconds" --norandommap --randrepeat=0 --gtod_reduce=1 --thread \
    --minimal --terse-version=3) >"$work/fio.out" 2>"$work/fio.log" || return 1
  # shellcheck disable=SC2086
  after=$(ticks ${pids[$peer]})
  # terse version 3: error is field 5; KiB and ms stand in 6 and 9 for reads, in 47 and 50 for writes
  awk -F';' -v bs="$bytes" -v cpu=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    $3 == "bench" && $5 == 0 {
      bytes = ($6 + $47) * 1024; ms = $9 + $50
      if (bytes == 0 || ms == 0) exit 1
      printf "ios=%d bytes=%.0f seconds=%.3f cpu=%.3f\n", bytes / bs, bytes, ms / 1000, cpu / hz
      found = 1
    }
    END { exit !found }' "$work/fio.out"
}

# Runs a job once and keeps the result: JOB COLUMN RUN ios=N bytes=N seconds=S cpu=S
measure() {
  local job=$1 column=$2 run=$3 result
  shift 3
  if result=$("$@"); then
    say "$job $column $run $result" >>"$work/results"
    awk -v column="$column" -v unit="$unit" '{
      split($1, n, "="); split($2, b, "="); split($3, s, "=")
      printf " %s %d", column, (unit == "iops" ? n[2] : b[2] / 1e6) / s[2] }' <<<"$result"
  else
    printf ' %s failed' "$column"
    status=1
    [ "$column" = raw ] || [ ! -s "$work/fio.log" ] || head -n 3 "$work/fio.log" >&2
  fi
}

run_jobs() {
  local run job peer name pattern bytes depth unit words
  while read -r name pattern bytes depth unit _ _ _ words; do
    wants "$jobs" "${name:-none}" || continue
    for ((run = 1; run <= runs; run++)); do
      printf '%s, run %d of %d:' "$words" "$run" "$runs"
      for peer in $peers; do
        if [ "$peer" = raw ]; then
          measure "$name" raw "$run" run_raw "$pattern" "$bytes" "$depth"
          [ "$bytes" -le "$split" ] ||
            measure "$name" raw-split "$run" run_raw "$pattern" "$bytes" "$depth" --split "$split"
        else
          measure "$name" "$peer" "$run" run_fio "$peer" "$pattern" "$bytes" "$depth"
        fi
      done
      echo
    done
  done <<<"$all_jobs"
}

# ---- memory and mount time of lunfs --------------------------------------------------------------

memory_of() { awk -v key="$2:" '$1 == key { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# Milliseconds from the command to its return; the tree must be whole then.
time_mount() {
  local url=$1 luns=$2 mnt=$work/mount start end found
  start=${EPOCHREALTIME/./}
  "$build/lunfs" "$url" "$mnt" >"$work/mount.log" 2>&1 </dev/null || return 1
  end=${EPOCHREALTIME/./}
  found=$(find "$mnt" -maxdepth 1 -name 'lun*.img' -size +0 | wc -l)
  "$build/lunfs" umount "$mnt" >"$work/umount.log" 2>&1 || unmount "$mnt"
  if [ "$found" != "$luns" ]; then
    say "the mount shows $found LUNs instead of $luns" >"$work/mount.log"
    return 1
  fi
  awk -v us=$((end - start)) 'BEGIN { printf "%.1f\n", us / 1000 }'
}

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# mount_times LUNS TIMES URL GOAL
mount_times() {
  local i
  : >"$work/times"
  for ((i = 0; i < $2; i++)); do
    if ! time_mount "$3" "$1" >>"$work/times"; then
      failed "mount of $iqn, LUNs: $1: $(tail -n 1 "$work/mount.log")"
      return
    fi
  done
  printf '  %-34s %8s ms  goal: under %s\n' "mount, LUNs: $1, median of $2" "$(median <"$work/times")" "$4"
}

make_many_luns() {
  local i
  make_target 2 "$iqn-many" || return 1
  for ((i = 1; i <= many; i++)); do
    truncate -s 16M "$work/many.$i" && make_lun 2 "$i" "$work/many.$i" || return 1
  done
}

report_lunfs() {
  say
  say "lunfs itself"
  alive "${pids[lunfs]}" || { failed "lunfs died: $(tail -n 1 "$work/lunfs.log")"; return; }
  printf '  %-34s %8s MiB goal: under 24\n' 'resident, one LUN, idle' "$idle"
  printf '  %-34s %8s MiB goal: under 64\n' 'resident, peak under the load' "$(memory_of "${pids[lunfs]}" VmHWM)"
  wants "$jobs" mount || return 0
  # the load's mount has LUN 1 and would be one writer too many
  stop_peer lunfs
  mkdir -p "$work/mount"
  mount_times 1 5 "iscsi://127.0.0.1:$port/$iqn/1" 150
  if make_many_luns; then
    mount_times "$many" 3 "iscsi://127.0.0.1:$port/$iqn-many" 1000
  else
    failed "tgtd does not take $many LUNs"
  fi
}

# ---- the table -----------------------------------------------------------------------------------

print_direct() {
  [ -s "$work/results" ] || return 0
  awk -v peers="$peers" -v all_jobs="$all_jobs" "$awk_median"'
    # of one job and column: the median of "speed" or "cpu" over the runs
    function typical(job, name, what,    run, all) {
      for (run = 1; run <= runs; run++)
        if ((job, name, run) in speed)
          all = all " " (what == "cpu" ? cpu[job, name, run] : speed[job, name, run])
      return median(all)
    }
    function number(v, format) { return v < 0 ? "-" : sprintf(format, v) }
    # lunfs / other in the same run, the median of that, and the goal where it is missed
    function ratio(job, other, goal,    run, all, r) {
      for (run = 1; run <= runs; run++)
        if ((job, "lunfs", run) in speed && (job, other, run) in speed)
          all = all " " speed[job, "lunfs", run] / speed[job, other, run]
      r = median(all)
      return r < 0 ? "-" : sprintf("%.2f", r) (goal != "" && r < goal ? " <" goal : "")
    }
    function heading(title, ratios,    i) {
      printf "\n%-30s", title
      for (i = 1; i <= columns; i++) printf " %9s", column[i]
      for (i = 1; ratios && i <= columns; i++)
        if (column[i] != "lunfs" && with_lunfs) printf "  %-13s", "lunfs/" column[i]
      print ""
    }
    BEGIN {
      columns = split(peers, column, " ")
      with_lunfs = index(" " peers " ", " lunfs ")
      lines = split(all_jobs, line, "\n")
      for (l = 1; l <= lines; l++)
        if (split(line[l], part, " [|] ") == 2) {
          split(part[1], f, " ")
          job = order[++jobs] = f[1]; unit[job] = f[5]; goal[job, "raw"] = f[6]; goal[job, "qemu"] = f[7]
          words[job] = part[2]
        }
    }
    {
      for (i = 4; i <= 7; i++) { split($i, pair, "="); value[pair[1]] = pair[2] }
      small = unit[$1] == "iops"
      speed[$1, $2, $3] = (small ? value["ios"] : value["bytes"] / 1e6) / value["seconds"]
      cpu[$1, $2, $3] = value["cpu"] / (small ? value["ios"] / 1e5 : value["bytes"] / 1073741824)
      if ($3 > runs) runs = $3
      ran[$1] = 1
    }
    END {
      heading("medians", 1)
      for (j = 1; j <= jobs; j++) {
        job = order[j]
        if (!(job in ran)) continue
        # the yardstick is the better of one command a request and several
        yardstick[job] = typical(job, "raw-split") > typical(job, "raw") ? "raw-split" : "raw"
        printf "%-30s", words[job]
        for (i = 1; i <= columns; i++) {
          name = column[i] == "raw" ? yardstick[job] : column[i]
          printf " %9s", number(typical(job, name), "%.0f") (name == "raw-split" ? "*" : "")
        }
        for (i = 1; i <= columns; i++)
          if (column[i] != "lunfs" && with_lunfs)
            printf "  %-13s", ratio(job, column[i] == "raw" ? yardstick[job] : column[i], goal[job, column[i]])
        print unit[job] == "iops" ? "  IOPS" : "  MB/s"
        if (yardstick[job] != "raw")
          marked = marked "\n  " words[job] sprintf(": %.0f", typical(job, "raw")) \
            (with_lunfs ? ", lunfs/raw " ratio(job, "raw", "") : "")
      }
      if (marked) print "* in commands of 256 KiB, which was faster; with one command a request:" marked
      if (with_lunfs) print "Ratios are taken within a run, then their median. x <y is under the goal y."

      heading("CPU seconds of the servers", 0)
      for (j = 1; j <= jobs; j++) {
        job = order[j]
        if (!(job in ran)) continue
        printf "%-30s", words[job]
        for (i = 1; i <= columns; i++)
          printf " %9s", number(typical(job, column[i] == "raw" ? yardstick[job] : column[i], "cpu"), "%.3f")
        printf "%s", unit[job] == "iops" ? "  per 100k I/Os" : "  per GiB      "
        a = typical(job, "lunfs", "cpu"); b = typical(job, "qemu", "cpu")
        if (a > 0 && b > 0) printf "  lunfs/qemu %.2f%s", a / b, (a < b ? "" : " >1")
        print ""
      }
      print "raw: rawload itself, which makes the load too; nbdfuse: with its qemu-nbd"
    }' "$work/results"
}
