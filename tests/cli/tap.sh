# shellcheck shell=bash
# Test Anything Protocol for the scripts here: source it, check things, end with tap_done.

tap_count=0 tap_failed=0

# tap_ok STATUS TEXT [DETAIL]: one result; DETAIL is shown when STATUS isn't 0.
tap_ok() {
	tap_count=$((tap_count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $tap_count - $2"
		return
	fi
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $2"
	[ -z "${3-}" ] || printf '# %s\n' "${3//$'\n'/$'\n# '}"
}

tap_skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

tap_done() {
	echo "1..$tap_count"
	[ "$tap_failed" -eq 0 ]
}
