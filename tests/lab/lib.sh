# shellcheck shell=bash disable=SC2154
# What boot-tests and vfio-tests share. Source it after guest-images/lib.sh.
#
# A test has a name. What it finds is TAP without numbers in $results/NAME.tap, what moat
# printed is in $results/NAME/{console,stderr} and its command line in command;
# $results/NAME.done exists when it is over.

# pass, fail, want, note: lines of NAME.tap. $name: the test's.
pass() { echo "ok $name: $*"; }
fail() { echo "not ok $name: $*"; }
note() { echo "# $*"; }
want() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1: expected '$2', got '$3'"; fi; }
# want_line WHAT PATTERN: moat printed such a line.
want_line() {
	if grep -qiE -- "$2" "$dir/stderr"; then pass "$1"; else fail "$1: no line in $dir/stderr"; fi
}

# guest_results: what the guest found itself. The terminal's carriage returns are no part of it.
guest_results() {
	tr -d '\r' < "$dir/console" |
		sed -nE "s/^.*MOAT-GUEST: pass (.*)/ok $name: \1/p; s/^.*MOAT-GUEST: FAIL (.*)/not ok $name: \1/p
			s/^.*MOAT-GUEST: note (.*)/# $name: \1/p"
}

# show NAME: prints NAME.tap with numbers, and what moat printed when a check failed.
# The sums are added to $count and $failed.
show() {
	local line bad=''
	grep -qE '^(not )?ok ' "$results/$1.tap" ||
		echo "not ok $1: nothing was checked" >> "$results/$1.tap"
	while IFS= read -r line; do
		case $line in
		"ok "*) count=$((count + 1)); echo "ok $count - ${line#ok }" ;;
		"not ok "*)
			count=$((count + 1)) failed=$((failed + 1)) bad=1
			echo "not ok $count - ${line#not ok }" ;;
		*) echo "$line" ;;
		esac
	done < "$results/$1.tap"
	# Without a command line it didn't come to run moat.
	if [ -z "$bad" ] || [ ! -e "$results/$1/stderr" ]; then return 0; fi
	echo "# $(< "$results/$1/command")"
	tail -n 20 "$results/$1/stderr" | sed 's/^/# stderr:  /'
	tail -n 50 "$results/$1/console" | tr -d '\r' | sed 's/^/# console: /'
}

# in_lab NAMES TIME SILENCE OPTION... -- COMMAND...: the tests NAMES in a lab (OPTION,
# SILENCE: see run-in-lab), where COMMAND does those that aren't done; at most TIME s. A lab
# that stands still or ends before its time (see HACKING.md, "The nested lab") is followed
# by a new one for the others, three at most. 1 when a check failed.
in_lab() {
	local name lab=0 status=125 names=$1 limit=$2 silence=$3
	shift 3
	for name in $names; do rm -f "$results/$name."{done,tap}; done
	while [ $status = 125 ] && [ $((lab += 1)) -le 3 ]; do
		[ $lab = 1 ] || note "the lab failed, here is number $lab"
		status=0
		"$MOAT_ROOT/tests/lab/run-in-lab" --results "$results" --time "$limit" \
			--silence "$silence" "$@" || status=$?
	done
	for name in $names; do
		! grep -q '^not ok' "$results/$name.tap" || status=1
	done
	return $status
}
