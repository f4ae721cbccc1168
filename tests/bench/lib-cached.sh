# shellcheck shell=bash disable=SC2154,SC2034,SC2317
# Tables 2 and 3: what people do with a mounted LUN, with all caches as they come; on loopback, and
# over a long way. Sourced by bench; the state is bench's.
#
# Each job of each peer begins with a fresh mount. A job ends when it is done, with all it wrote on the
# target, or when its time is over: then its rate is that of what was done until then.

# name, what is counted, the goals beside each peer at 0, 2 and 20 ms, in words
readonly all_cached_jobs='
seqw4k writes/s  5 20 1  | 4k sequential write, fsync at end
rndw4k writes/s  5 20 1  | 4k random write, fsync each 1000
cold   MB/s      1 1  10 | 1M sequential read, cold
warm   MB/s      1 1  1  | 1M sequential read again, warm
cpin   MB/s      1 1  1  | cp of an image in, and sync
cpout  MB/s      1 1  1  | cp of an image out
untar  files/s   1 1  1  | untar into ext4, and umount
sqlite inserts/s 1 1  1  | SQLite inserts on ext4'
readonly cached_jobs="seqw4k rndw4k cold warm cpin cpout untar sqlite window"
readonly warm_goal=0.9       # beside a local file
readonly windows="4 16"      # MiB of cache that reads ahead over 20 ms
readonly window_goal=0.8     # of what they can have under way
readonly inserts=500
readonly tree_folders=60 tree_files=50   # files a folder
declare -A part=([0]=60 [2]=20 [20]=6)   # folders that are unpacked, by the way's ms

image_size=0 image_backing='' way=0 portal='' bound=0
amount=0 spent=0 estimated=''   # what a job did: of what is counted, microseconds; by an estimate
peak=0                          # resident MiB of lunfs
declare -A whole=()             # sectors that unpacking so many folders writes

list_cached() {
  say "Tables 2 and 3, buffered:"
  awk -F' [|] ' 'NF { sub(/ .*/, "", $1); printf "  %-8s %s\n", $1, $2 }' <<<"$all_cached_jobs"
  printf '  %-8s %s\n' window "1M sequential read, cold, with cache_size= ${windows// /M, }M (table 3)"
}

cached_tables() {
  local runs=${runs:-${quick:+1}} those mounters running=''
  runs=${runs:-3} bound=$((3 * seconds))
  lunfs_options=$given_options
  # shellcheck disable=SC2086
  mounters=$(for peer in $peers; do case $peer in raw | local) ;; *) echo "$peer" ;; esac; done)
  # shellcheck disable=SC2086
  those_installed $mounters
  mounters=$those
  if wants "$peers" local; then mounters+=" local"; fi
  skip_what_is_missing
  make_image
  make_target 3 "$iqn-image" "$image_backing" || die "tgtd does not take the image's LUN"
  if wants_any "$jobs" untar; then make_tree; fi
  say
  say "Tables 2 and 3: a LUN of $((image_size >> 20)) MiB, copied from and to $([ -n "$memory" ] && echo memory || echo "$work")" \
    "($(awk '/^MemAvailable/ { printf "%.1f", $2 / 1048576 }' /proc/meminfo) GiB available), $(nproc) CPUs at load" \
    "$(cut -d' ' -f1 /proc/loadavg)${lunfs_options:+; lunfs -o $lunfs_options}; $bound s a job at most, medians of $runs"
  if wants "$tables" 2; then
    portal=127.0.0.1:$port
    along_the_way 0 "2. Buffered, on loopback"
  fi
  if wants "$tables" 3; then
    for way in 2 20; do
      start_proxy "$way" || { failed "faultproxy does not start: $(last_words faultproxy)"; continue; }
      show_wire
      along_the_way "$way" "3. Buffered, $way ms there and back"
      if [ "$way" = 20 ] && wants "$jobs" window && wants "$mounters" lunfs; then read_windows; fi
      stop "$proxy"
    done
  fi
  [ "$peak" = 0 ] || printf '\n%-36s %s MiB\n' "lunfs, resident at most" "$peak"
}

skip_what_is_missing() {
  local missing=''
  if wants_any "$jobs" "untar sqlite" && ! loops_work; then
    say "untar, sqlite: skipped, there are no loop devices, or no mkfs.ext4, or this is not root"
    missing="untar sqlite"
  elif wants "$jobs" sqlite && ! has sqlite3; then
    say "sqlite: skipped, there is no sqlite3"
    missing=sqlite
  fi
  # shellcheck disable=SC2086
  jobs=$(for name in $jobs; do wants "$missing" "$name" || printf '%s ' "$name"; done)
}

# The LUN's file, the image that is copied in, what is copied out, and the local file: four in memory
# beside the caches.
make_image() {
  local mib sizes=${image:-${quick:-1024 512 256}}
  # shellcheck disable=SC2086
  if mib=$(fits 4 $sizes); then make_store; else mib=${image:-256}; fi
  image_size=$((mib << 20)) image_backing=$store/image-lun
  { head -c "$image_size" /dev/zero >"$image_backing" && head -c "$image_size" /dev/urandom >"$store/source" &&
    cp "$store/source" "$store/local"; } || die "no room for images of $mib MiB: try a smaller --image"
}

# A tree of sources, as one tar for each part of it.
make_tree() {
  local i count
  mkdir "$work/tree"
  for ((i = 10; i < 10 + tree_folders; i++)); do mkdir "$work/tree/$i"; done
  awk -v folders="$tree_folders" -v files="$tree_files" -v tree="$work/tree" 'BEGIN {
    srand(1)
    for (i = 10; i < 10 + folders; i++)
      for (j = 0; j < files; j++) {
        name = tree "/" i "/file" j ".c"
        for (lines = int(exp(rand() * 5) + 5); lines > 0; lines--)
          printf "\tif (state[%d] != %d) return function_%d(%d, buffer);\n", rand() * 1e6, rand() * 1e9, rand() * 1e6, lines >name
        close(name)
      }
  }'
  for count in "${part[@]}"; do
    # shellcheck disable=SC2046
    tar -C "$work/tree" -cf "$work/tree.$count.tar" $(seq 10 $((9 + count)))
  done
  rm -r "$work/tree"
}

start_proxy() {
  say "latency both $(($1 * 500))us" >"$work/way"
  serve faultproxy "$build/tests/tools/faultproxy" "127.0.0.1:$port" "$work/way"
  proxy=$!
  await "$proxy" grep -q '^PORT ' "$work/faultproxy.log" || return 1
  portal=127.0.0.1:$(awk '/^PORT / { print $2 }' "$work/faultproxy.log")
}

# rate_of_raw ARG...: what libiscsi alone reaches, in MB/s, and ms a request
rate_of_raw() {
  timeout 60 "$build/tests/bench/rawload" "$@" --seconds "$seconds" "iscsi://$portal/$iqn-image/1" |
    awk '{ for (i = 1; i <= NF; i++) { split($i, p, "="); v[p[1]] = p[2] }
           if (v["ios"]) printf "%.0f %.1f\n", v["bytes"] / v["seconds"] / 1e6, 1000 * v["seconds"] / v["ios"] }'
}

# The proxy is to delay, not to throttle.
show_wire() {
  local one several
  installed raw || return 0
  one=$(rate_of_raw --read --random --bs 4096 --depth 1)
  several=$(rate_of_raw --read --sequential --bs 262144 --depth 120)
  say
  say "the way of $way ms, by libiscsi alone: 4k read ${one#* } ms; with 30 MiB under way ${several% *} MB/s"
}

# ---- the jobs: each sets amount and spent --------------------------------------------------------

# run_buffered PATTERN BYTES ARG...: amount is in bytes
run_buffered() {
  local pattern=$1 bytes=$2 result
  shift 2
  (cd "$work" && timeout --foreground -k 5 $((bound + 120)) \
    fio --name=bench --filename="${file[$serving]}" --allow_file_create=0 --fallocate=none --direct=0 \
    --ioengine=psync --rw="$pattern" --bs="$bytes" --size="$image_size" --runtime="$bound" --norandommap \
    --thread --minimal --terse-version=3 "$@") >"$work/fio.out" 2>"$work/job.log" || return 1
  # the fields: see run_fio; the time is with that of fsync
  result=$(awk -F';' '$3 == "bench" && $5 == 0 && $9 + $50 > 0 { printf "%.0f %d", ($6 + $47) * 1024, $9 + $50 }' \
    "$work/fio.out")
  [ -n "$result" ] || return 1
  amount=${result% *} spent=$((${result#* } * 1000))
}

run_seqw4k() { run_buffered write 4096 --end_fsync=1 && amount=$((amount / 4096)); }
run_rndw4k() { run_buffered randwrite 4096 --fsync=1000 --end_fsync=1 && amount=$((amount / 4096)); }
run_cold() { run_buffered read 1048576; }

# Reads once, and then again and again what that read, each time with an open of its own.
run_warm() {
  local pass bytes=0 us=0 result count
  run_buffered read 1048576 || return 1
  count=$((amount >> 20))
  for ((pass = 0; pass < 5 && us < seconds * 1000000; pass++)); do
    # dd tells what it did also when it is interrupted
    timeout --foreground -s INT -k 5 "$bound" dd if="${file[$serving]}" of=/dev/null bs=1M count="$count" 2>"$work/job.log"
    result=$(awk '/ copied, / { printf "%d ", $1; sub(/.* copied, /, ""); printf "%.0f", $1 * 1e6 }' "$work/job.log")
    [ -n "$result" ] || return 1
    bytes=$((bytes + ${result% *})) us=$((us + ${result#* }))
  done
  amount=$bytes spent=$us
}

# copy FROM TO: amount is what was copied when the time was over
copy() {
  local pid fd
  amount=$image_size
  in_time "$bound" cp "$1" "$2"
  case $? in
  0) ;;
  124)
    # where it stands in the LUN's file
    pid=$(pgrep -g "$job" -x cp)
    for fd in "/proc/$pid/fd/"*; do
      if [ "$(readlink "$fd")" = "${file[$serving]}" ]; then
        amount=$(awk '$1 == "pos:" { print $2 }' "/proc/$pid/fdinfo/${fd##*/}")
      fi
    done
    end_job
    ;;
  *) return 1 ;;
  esac
  spent=$elapsed
}

# fill_lun FILE: behind the peer's back
fill_lun() { dd if="$1" of="$image_backing" bs=1M count=$((image_size >> 20)) conv=notrunc 2>"$work/job.log"; }

prepare_cpin() { fill_lun /dev/zero; }
prepare_cpout() { fill_lun "$store/source"; } # no zeros, which cp would leave out

run_cpin() {
  copy "$store/source" "${file[$serving]}" || return 1
  in_time 300 sync "${file[$serving]}" || return 1
  spent=$((spent + elapsed))
  [ "$amount" -lt "$image_size" ] || cmp "$image_backing" "$store/source" >"$work/job.log" 2>&1
}

run_cpout() {
  local result=0
  copy "${file[$serving]}" "$store/out" || return 1
  [ "$amount" -lt "$image_size" ] || cmp "$image_backing" "$store/out" >"$work/job.log" 2>&1 || result=1
  rm -f "$store/out"
  return "$result"
}

# The file system is made behind the peer's back, before it mounts.
prepare_untar() {
  local on=$image_backing
  [ "$serving" != local ] || on=$store/local
  timeout 60 mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$on" >"$work/job.log" 2>&1
}
prepare_sqlite() { prepare_untar; }

sectors_written() { awk '{ print $7 }' "/sys/class/block/${loop##*/}/stat"; }

# Unpacks, syncs, unmounts. Where that takes too long, the share of the sectors that are written by then
# says how much was done; the peer does not survive this.
run_untar() {
  local folders=${part[$way]} before
  attach_loop "${file[$serving]}" || return 1
  before=$(sectors_written)
  amount=$((folders * tree_files))
  # shellcheck disable=SC2016
  in_time $((3 * bound)) sh -c 'tar -xf "$1" -C "$2" && sync -f "$2" && umount "$2"' _ "$work/tree.$folders.tar" "$work/ext4"
  case $? in
  0) if [ "$serving" = local ]; then whole[$folders]=$(($(sectors_written) - before)); fi ;;
  124)
    amount=$(awk -v n="$amount" -v written=$(($(sectors_written) - before)) -v whole="${whole[$folders]:-1}" \
      'BEGIN { print n * (written < whole ? written / whole : 1) }')
    estimated=yes
    abandon "$serving"
    end_job
    ;;
  *) return 1 ;;
  esac
  spent=$elapsed
  detach_loop
}

run_sqlite() {
  local db=$work/ext4/db
  attach_loop "${file[$serving]}" || return 1
  timeout 60 sqlite3 "$db" 'CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value INTEGER)' 2>"$work/job.log" || return 1
  awk -v n="$inserts" 'BEGIN { for (i = 1; i <= n; i++) printf "INSERT INTO t(name, value) VALUES(\047the name of number %d\047, %d);\n", i, i * 7919 }' >"$work/inserts.sql"
  # shellcheck disable=SC2016
  in_time "$bound" sh -c 'exec sqlite3 -bail "$1" <"$2"' _ "$db" "$work/inserts.sql"
  case $? in
  0 | 124) ;;
  *) return 1 ;;
  esac
  spent=$elapsed
  end_job
  amount=$(timeout 120 sqlite3 "$db" 'SELECT count(*) FROM t' 2>"$work/job.log") || return 1
  in_time 120 umount "$work/ext4" || abandon "$serving"
  end_job
  detach_loop
}

# ---- a job of a peer, from a fresh mount ---------------------------------------------------------

start_local() { file[local]=$store/local; }

# cell JOB PEER: sets amount and spent, or fails and says so.
cell() {
  local name=$1 result=1 resident
  serving=$2 amount=0 spent=0 estimated=''
  : >"$work/job.log"
  if [ "$(type -t "prepare_$name")" = function ] && ! "prepare_$name"; then
    failed "$name, $serving: $(tail -n 1 "$work/job.log")"
    serving=none
    return 1
  fi
  if "start_$serving" "$portal" "$iqn-image" "$image_size"; then
    "run_$name" && result=0
    [ "$result" = 0 ] || failed "$name, $serving: $(tail -n 1 "$work/job.log") $(last_words "$serving")"
    if [ "$serving" = lunfs ] && alive "${pids[lunfs]}"; then
      resident=$(memory_of "${pids[lunfs]}" VmHWM)
      peak=$(awk -v a="$peak" -v b="${resident:-0}" 'BEGIN { print (a > b ? a : b) }')
    fi
  else
    failed "$serving did not start: $(last_words "$serving")"
  fi
  if [ -n "$loop" ]; then
    abandon "$serving"
    end_job
    detach_loop
  fi
  [ "$serving" = local ] || stop_peer "$serving"
  serving=none
  [ "$result" = 0 ] && [ "$spent" -gt 0 ] && [ "${amount%.*}" -gt 0 ]
}

# The local file has a part in few jobs only.
has_part() { [ "$2" != local ] || wants "warm untar sqlite" "$1"; }

# along_the_way MS TITLE: all jobs, and their table
along_the_way() {
  local run peer name unit words
  way=$1
  : >"$work/cached"
  say
  if wants "$jobs" untar; then
    [ -n "${whole[${part[$way]}]:-}" ] || cell untar local || failed "no loop device could be used"
  fi
  while read -r name unit _ _ _ _ words; do
    wants "$jobs" "${name:-none}" || continue
    for ((run = 1; run <= runs; run++)); do
      printf '%s, run %d of %d:' "$words" "$run" "$runs"
      for peer in $mounters; do
        has_part "$name" "$peer" || continue
        if cell "$name" "$peer"; then
          say "$name $peer $run $amount $spent ${estimated:-no}" >>"$work/cached"
          awk -v peer="$peer" -v a="$amount" -v us="$spent" -v unit="$unit" -v estimated="$estimated" \
            'BEGIN { printf " %s %s%.1f", peer, (estimated ? "~" : ""), a / us * (unit == "MB/s" ? 1 : 1e6) }'
        else
          printf ' %s failed' "$peer"
        fi
      done
      echo
    done
  done <<<"$all_cached_jobs"
  print_cached "$2"
}

# ---- read-ahead in little memory -----------------------------------------------------------------

# A cache of so many MiB may have as many under way: so many in each round trip is all it can reach.
read_windows() {
  local mib run raw rates=''
  say
  say "1M sequential read, cold, $way ms there and back"
  for mib in $windows; do
    lunfs_options=${given_options:+$given_options,}cache_size=${mib}M rates=''
    if refused "$lunfs_options"; then
      say "  skipped: this lunfs does not know cache_size="
      break
    fi
    raw=$(rate_of_raw --read --sequential --bs 262144 --depth $((mib * 4)))
    for ((run = 1; run <= runs; run++)); do
      cell cold lunfs && rates+=" $(awk -v a="$amount" -v us="$spent" 'BEGIN { print a / us }')"
    done
    awk -v rates="$rates" -v mib="$mib" -v ms="$way" -v raw="${raw% *}" -v goal="$window_goal" "$awk_median"'
      BEGIN {
        rate = median(rates); most = mib * 1048.576 / ms
        if (rate < 0) exit
        printf "  cache_size=%-4s %6.0f MB/s; %.0f%% of cache_size a round trip, %.0f MB/s%s; %.0f%% of libiscsi with as much under way, %.0f MB/s\n",
          mib "M", rate, 100 * rate / most, most, (rate < goal * most ? " <" 100 * goal "%" : ""), 100 * rate / raw, raw
      }'
  done
  lunfs_options=$given_options
}

# Is this no option of this lunfs?
refused() {
  mkdir -p "$work/refused"
  timeout 10 "$build/lunfs" "iscsi://127.0.0.1:1/$iqn/1" "$work/refused" -o "$1" >/dev/null 2>&1
  [ $? = 2 ]
}

# ---- the table -----------------------------------------------------------------------------------

print_cached() {
  [ -s "$work/cached" ] || return 0
  awk -v peers="$mounters" -v all_jobs="$all_cached_jobs" -v way="$way" -v title="$1" -v warm_goal="$warm_goal" \
    -v folders="${part[$way]}" -v files="$tree_files" "$awk_median"'
    function typical(job, name,    run, all) {
      for (run = 1; run <= runs; run++)
        if ((job, name, run) in rate) all = all " " rate[job, name, run]
      return median(all)
    }
    function number(v) { return v < 0 ? "-" : sprintf(v < 10 ? "%.2f" : v < 100 ? "%.1f" : "%.0f", v) }
    # lunfs / other in the same run, the median of that, and the goal where it is missed
    function ratio(job, other, goal,    run, all, r) {
      for (run = 1; run <= runs; run++)
        if ((job, "lunfs", run) in rate && (job, other, run) in rate)
          all = all " " rate[job, "lunfs", run] / rate[job, other, run]
      r = median(all)
      return r < 0 ? "-" : number(r) (goal != "" && r < goal ? " <" goal : "")
    }
    BEGIN {
      all = split(peers, mounter, " ")
      with_lunfs = index(" " peers " ", " lunfs ")
      lines = split(all_jobs, line, "\n")
      for (l = 1; l <= lines; l++)
        if (split(line[l], part, " [|] ") == 2) {
          split(part[1], f, " ")
          job = order[++jobs] = f[1]; unit[job] = f[2]; words[job] = part[2]
          goal[job] = f[way == 0 ? 3 : way == 2 ? 4 : 5]
        }
    }
    {
      rate[$1, $2, $3] = $4 / $5 * (unit[$1] == "MB/s" ? 1 : 1e6)
      if ($6 == "yes") guess[$1, $2] = 1
      if ($3 > runs) runs = $3
      ran[$1] = took_part[$2] = 1
    }
    END {
      for (i = 1; i <= all; i++)
        if (mounter[i] in took_part) column[++columns] = mounter[i]
      printf "\n%-36s", title
      for (i = 1; i <= columns; i++) printf " %9s", column[i]
      for (i = 1; with_lunfs && i <= columns; i++)
        if (column[i] != "lunfs") printf "  %-13s", "lunfs/" column[i]
      print ""
      for (j = 1; j <= jobs; j++) {
        job = order[j]
        if (!(job in ran)) continue
        printf "%-36s", words[job]
        for (i = 1; i <= columns; i++)
          printf " %9s", ((job, column[i]) in guess ? "~" : "") number(typical(job, column[i]))
        for (i = 1; with_lunfs && i <= columns; i++)
          if (column[i] != "lunfs")
            printf "  %-13s", ratio(job, column[i], column[i] != "local" ? goal[job] : job == "warm" ? warm_goal : "")
        print "  " unit[job]
      }
      if ("untar" in ran) printf "untar: %d files. ", folders * files
      print "~ where the time was over: by the share of the sectors that were written."
      if (with_lunfs) print "Ratios are taken within a run, then their median. x <y is under the goal y."
    }' "$work/cached"
}
