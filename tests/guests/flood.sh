# shellcheck shell=sh disable=SC2154
# The guest that floods (flood/main.c), and what a person at the host notices of it.
# Sourced by run.

# What moat's memory may grow by once a round of each flood is over, in KiB: all that has a
# limit is at its limit then. For what the kernel and the C library do with a page more or less.
growth=192
# Where there are so many mappings that they are in huge pages, the kernel may fill up two of these.
huge_growth=4288
# Where the kernel makes huge pages of all memory, it fills up some as it likes.
thp=/sys/kernel/mm/transparent_hugepage/enabled
always_growth=8192
# Bytes of a mapping, at most (HACKING.md).
per_mapping=96
# Lines of --verbose, and what has a rate limit of its own: two endpoints, three virtio devices,
# the root bus; 8 lines of each, then one a second (vmm/base/log.h).
verbose_lines=30
log_limits=6
log_burst=8
# Reports that are neither with the guest nor dropped: 64 that wait and one in hand, and in
# buffers that the guest hadn't looked at when it reset the device, twice, 16 each time.
reports_on_their_way=97

# flood_start TAG BUS LIMIT TOTAL WORDS LOG: a guest in the background, whose console is $work/TAG.in
# and $work/TAG.tap; it gets WORDS and the limits.
flood_start() {
	tag=$1
	truncate -s 0 "$work/$tag.disk0" "$work/$tag.disk1"
	truncate -s 1M "$work/$tag.disk0" "$work/$tag.disk1"
	: >"$work/$tag.tap"
	rm -f "$work/$tag.status" "$work/$tag.pid"
	set -- "$6" "$moat" run --kernel "$guests/flood" --memory 64M ${verbose:+--verbose} \
		--viommu="bus=$2,max-mappings=$3" --max-mappings "$4" \
		--disk "path=$work/$tag.disk0,bus=$2" --disk "path=$work/$tag.disk1,bus=$2" \
		--cmdline "limit=$3 total=$4 $5"
	# The log is moat's alone: a shell that has something to say mustn't wait in a full pipe.
	(
		timeout -k 5 "${MOAT_GUEST_TIMEOUT:-120}" \
			sh -c 'echo $$ >"$0" && log=$1 && shift && exec "$@" 2>"$log"' \
			"$work/$tag.pid" "$@" <"$work/$tag.in" >"$work/$tag.tap" 3>&- 4>&- 5>&-
		echo $? >"$work/$tag.status"
	) &
}

# flood_said TAG WORD: waits for the guest to say WORD, or moat's end. $peak is then the most memory
# that moat had, in KiB.
flood_said() {
	until grep -q "^# $2" "$work/$1.tap" || [ -e "$work/$1.status" ]; do
		sleep 0.05
	done
	peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' \
		"/proc/$(cat "$work/$1.pid")/status" 2>/dev/null)
	peak=${peak:-0}
}

# flood_end TAG: waits for moat's end; sets $got.
flood_end() {
	while [ ! -e "$work/$1.status" ]; do
		sleep 0.05
	done
	got=$(cat "$work/$1.status")
}

# numbers FILE PATTERN: the sum of the numbers that PATTERN's \( \) finds, one a line.
numbers() { sed -n "s/.*$2.*/\1/p" "$1" | awk '{ sum += $1 } END { print sum + 0 }'; }

# flood_log NAME SECONDS: the log in $work/log is short, and nothing is missing from its figures.
flood_log() {
	cp "$work/log" "$work/out"
	lines=$(wc -l <"$work/log")
	most=$((verbose_lines + log_limits * (log_burst + $2)))
	problem=
	[ "$lines" -le $most ] || problem="moat wrote $lines lines in $2 s, at most $most are good"
	[ "$lines" -le $most ] || head -n 100 "$work/log" >"$work/out"
	verdict "$1: the log is short" "$problem"
	refused=$(numbers "$work/flood.tap" '# refused \([0-9]*\)')
	reports=$(numbers "$work/flood.tap" ' reports \([0-9]*\)')
	faults=$(numbers "$work/log" ' \([0-9]*\) faults,')
	dropped=$(numbers "$work/log" ' \([0-9]*\) events dropped')
	shown=$(grep -c ' refused: ' "$work/log")
	unshown=$(numbers "$work/log" ' refused: .*(\([0-9]*\) similar lines dropped)')
	problem=
	[ "$refused" -eq "$faults" ] ||
		problem="of $refused requests that were refused $faults are counted as faults"
	[ $((shown + unshown)) -eq "$faults" ] ||
		problem="of $faults faults $shown have lines and $unshown are told to have none"
	waiting=$((faults - dropped - reports))
	{ [ $waiting -ge 0 ] && [ $waiting -le $reports_on_their_way ]; } ||
		problem="of $faults faults $reports were reported, $dropped reports dropped"
	verdict "$1: what wasn't logged or reported is counted" "$problem"
}

# flood NAME BUS LIMIT TOTAL WORDS GROWTH: that guest alone; moat may grow by GROWTH KiB.
flood() {
	name=$1 verbose=1 peaks='' began=$(date +%s)
	flood_start flood "$2" "$3" "$4" "$5" "$work/log"
	for word in started settled flooded; do
		flood_said flood $word
		peaks="$peaks $peak"
		echo >&3
	done
	flood_end flood
	seconds=$(($(date +%s) - began + 1))
	guest_tests "$name" "$got" "$work/flood.tap" "$work/log"
	flood_log "$name" $seconds
	more=$6
	! grep -q '\[always\]' $thp 2>/dev/null || more=$((more + always_growth))
	limit=$(($4 * per_mapping / 1024 + more))
	# shellcheck disable=SC2086 # three numbers
	set -- $peaks
	problem=
	[ $(($3 - $2)) -le "$more" ] || problem="after the first round it grew by $(($3 - $2)) KiB"
	[ $(($2 - $1)) -le $limit ] ||
		problem="it grew by $(($2 - $1)) KiB, at most $limit are good"
	[ "$3" -gt 0 ] || problem="moat ended before it could be looked at"
	echo "# peak memory in KiB: $1 at the start, $2 after a round of each flood, $3 at the end"
	verdict "$name: moat's memory doesn't grow" "$problem"
}

# flood_beside NAME BUS: nobody reads what two moats write to one pipe, which is full. The guest of
# one causes faults until that of the other, which floods a little, is through.
flood_beside() {
	verbose=
	dd if=/dev/zero of="$work/err" bs=4096 oflag=nonblock 2>"$work/last"
	flood_start flood "$2" 10000 10000 endless "$work/err"
	flood_said flood flooding
	flood_start beside "$2" 10000 15000 "rounds=2 $all_floods" "$work/err"
	for word in started settled flooded; do
		flood_said beside $word
		echo >&4
	done
	flood_end beside
	guest_tests "$1: the other guest" "$got" "$work/beside.tap" /dev/null
	echo >&3
	flood_said flood flooded
	echo >&3
	flood_end flood
	guest_tests "$1: the flooding guest" "$got" "$work/flood.tap" /dev/null
}

floods() {
	all_floods="faults mappings kicks resets config" rounds=100
	# Emulated, each exit takes its time. And it's the lab's own kernel.
	if [ -n "${MOAT_IN_LAB:-}" ]; then
		rounds=5
		[ ! -w $thp ] || echo madvise >$thp
	fi
	mkfifo "$work/flood.in" "$work/beside.in" "$work/err"
	exec 3<>"$work/flood.in" 4<>"$work/beside.in" 5<>"$work/err"
	for bus in pci mmio; do
		flood "a flood, $bus" $bus 10000 15000 "rounds=$rounds $all_floods" $growth
	done
	[ -n "${MOAT_IN_LAB:-}" ] ||
		flood "the default limit of mappings" pci 1048576 1049576 "rounds=2 mappings" $huge_growth
	flood_beside "a flood, nobody reads the log" pci
	exec 3>&- 4>&- 5>&-
}
