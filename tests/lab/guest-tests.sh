# shellcheck shell=dash disable=SC2034,SC2154
# What the guests of tests/lab/boot-tests check, from inside. guest/init explains
# pass, fail, want and the moat_NAME variables from the kernel command line:
#
#   moat.host      the host's address, and moat.get, moat.put: its ports; moat.file: what to get
#   moat.sum       sha256 of the first disk's 64 MiB; moat.putsum: of its first 2
#   moat.netsum    sha256 of the 10 MiB that the host serves
#   moat.type      expected type of every IOMMU group, a pattern ("none": no group)
#   moat.type_disk, moat.type_data, moat.type_net   the same for one device
#   moat.msi       the reserved region of every endpoint for MSIs, FIRST-LAST
#   moat.chip      what /proc/interrupts calls the controller of a PCI device's MSIs
#   moat.iommus    how many different IOMMUs the devices are behind
#   moat.ip        a fixed address, where there is no DHCP
#   moat.page      the kernel's page size
#   moat.cpus, moat.nonce

test_all() {
	check_cpus
	# Of what the kernel told the process when it started: 6 is AT_PAGESZ.
	[ -z "$moat_page" ] || want "pages have $moat_page bytes" "$moat_page" \
		"$(od -A n -t u8 /proc/self/auxv | awk '$1 == 6 { print $2 }')"
	check_groups
	check_disk
	check_pattern
	check_net
}

check_cpus() {
	[ -z "$moat_cpus" ] || want "$moat_cpus CPUs are online" "$moat_cpus" "$(nproc)"
}

# Each device has the IOMMU that it should have, and a group of its own.
check_groups() {
	local dev path groups='' iommus=''
	for dev in disk data net; do
		case $dev in
		net) path=$(endpoint_of_net eth0 2>/dev/null) ;;
		*) path=$(disk $dev); [ -z "$path" ] || path=$(endpoint_of_disk "$path") ;;
		esac
		if [ ! -d "$path" ]; then
			fail "$dev is there: no such device"
			continue
		fi
		eval "want_match \"$dev's group (\${path##*/}) is of type \${moat_type_$dev:-$moat_type}\" \
			\"\${moat_type_$dev:-$moat_type}\" \"\$(group_type \"$path\")\""
		if [ -e "$path/iommu_group" ]; then
			groups="$groups $(group_of "$path")"
			want "$dev's reserved region for MSIs" "$moat_msi" \
				"$(sed -n 's/^\(.*\) \(.*\) msi$/\1-\2/p' "$path/iommu_group/reserved_regions")"
		fi
		[ ! -e "$path/iommu" ] || iommus="$iommus $(readlink -f "$path/iommu")"
	done
	[ -z "$moat_chip" ] || want "MSIs come by the $moat_chip" yes \
		"$(grep -q "$moat_chip-PCI-MSI.*virtio" /proc/interrupts && echo yes)"
	want "no two share a group" "" "$(echo "$groups" | tr ' ' '\n' | sort | uniq -d)"
	[ -z "$moat_iommus" ] || want "they are behind $moat_iommus IOMMUs" "$moat_iommus" \
		"$(echo "$iommus" | tr ' ' '\n' | grep . | sort -u | wc -l)"
}

check_disk() {
	want "64 MiB of the disk have the host's checksum" "$moat_sum" "$(sum_of "$(disk disk)" 64)"
}

# What the host looks for after the power-off: a MiB of lines at 2 MiB + 12 KiB.
pattern() { yes "moat pattern $moat_nonce" | head -c 1048576; }

check_pattern() {
	local data
	data=$(disk data)
	[ -n "$data" ] || { fail "a pattern is written: no disk"; return; }
	pattern > /tmp/pattern
	dd if=/tmp/pattern of="$data" bs=4096 seek=515 conv=fsync 2>/tmp/dd.log ||
		fail "a pattern is written: $(tail -n 1 /tmp/dd.log)"
	echo 3 > /proc/sys/vm/drop_caches
	want "a pattern is read back" "$(sha256sum < /tmp/pattern)" \
		"$(dd if="$data" bs=4096 skip=515 count=256 2>/dev/null | sha256sum)"
}

check_net() {
	if ! net_up eth0 "${moat_ip:-}"; then
		fail "the network is up: $(tail -n 1 /run/dhcp.log 2>/dev/null)"
		return
	fi
	pass "the network is up ($(ip -4 -o addr show eth0 | awk '{ print $4 }'))"
	if [ -n "${moat_ip:-}" ]; then
		if within 20 ping -c 3 -i 0.2 -s 1400 "$moat_host" > /tmp/ping.log 2>&1; then
			pass "the host answers pings"
		else
			fail "the host answers pings: $(tail -n 2 /tmp/ping.log)"
		fi
	fi
	local began sum
	began=$(cut -d. -f1 /proc/uptime)
	sum=$(fetch_sum "http://$moat_host:$moat_get/$moat_file")
	want "10 MiB down the network arrive intact ($(($(cut -d. -f1 /proc/uptime) - began)) s)" \
		"$moat_netsum" "$sum"
	# The host compares what arrives there.
	if dd if="$(disk disk)" bs=1M count=2 2>/dev/null | within 300 nc "$moat_host" "$moat_put"; then
		pass "2 MiB up the network are sent"
	else
		fail "2 MiB up the network are sent: nc's status $?"
	fi
}

# A device that is there, but may not be written.
test_readonly() {
	local dev
	dev=$(disk disk)
	want "the disk says that it is read-only" 1 "$(cat "/sys/block/${dev##*/}/ro")"
	if dd if=/dev/zero of="$dev" bs=4096 count=1 conv=fsync 2>/dev/null; then
		fail "a write is refused: it wasn't"
	else
		pass "a write is refused"
	fi
	check_disk
}

test_rng() {
	want_match "the kernel uses the virtio-rng" "virtio_rng*" \
		"$(cat /sys/class/misc/hw_random/rng_current)"
	want "it gives 64 bytes" 64 "$(within 20 head -c 64 /dev/hwrng | wc -c)"
	want "they aren't constant" different \
		"$([ "$(within 20 head -c 64 /dev/hwrng | sha256sum)" != \
		     "$(within 20 head -c 64 /dev/hwrng | sha256sum)" ] && echo different)"
}

# Without a driver for the IOMMU: nothing may come through, not even a hang of
# ours: whatever touches the disk may never return, so it's done aside.
test_refused() {
	(dd if=/dev/vda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null && echo > /tmp/read) &
	sleep 5
	if [ -e /tmp/read ]; then fail "a read is refused: it wasn't"; else pass "a read is refused"; fi
	if ip link show eth0 >/dev/null 2>&1; then
		(within 10 udhcpc -i eth0 -n -q -f -t 2 -T 2 -s /scripts/dhcp >/dev/null 2>&1 &&
			echo > /tmp/lease) &
		sleep 8
	fi
	if [ -e /tmp/lease ]; then fail "no packet passes: DHCP worked"; else pass "no packet passes"; fi
}

# The first boot leaves a mark on the disk and resets; later ones count it up and
# look at everything again, the last powers off.
test_cycles() {
	local data count
	data=$(disk data)
	count=$(dd if="$data" bs=512 count=1 2>/dev/null | tr -cd '0-9')
	count=$((${count:-0} + 1))
	{ echo $count; cat /dev/zero; } | head -c 512 | dd of="$data" bs=512 conv=fsync 2>/dev/null
	out "boot $count of $moat_cycles"
	check_cpus
	check_groups
	check_disk
	[ $count -ge "$moat_cycles" ] || moat_end=reboot
}

# The power button is an input device; a press is an event to read from it.
test_button() {
	local input
	for input in /sys/class/input/event*; do
		case $(cat "$input/device/name") in
		"Power Button" | gpio-keys) ;; # as ACPI and the device tree have it
		*) continue ;;
		esac
		out "waiting for the power button"
		within 60 dd if="/dev/input/${input##*/}" bs=24 count=1 of=/dev/null 2>/dev/null
		want "the power button is pressed" 0 $?
		return
	done
	fail "there is a power button: $(cat /sys/class/input/event*/device/name)"
}

# The host fails under the guest: its file system is full, then it truncates an
# image and takes the network away. The guest gets errors and lives.
test_host_fails() {
	local disk data i
	disk=$(disk disk) data=$(disk data)
	if dd if=/dev/zero of="$data" bs=64k count=64 oflag=direct 2>/tmp/dd.log; then
		fail "a write to a full host fails: it didn't"
	else
		want_match "a write to a full host fails" "*Input/output error*" "$(cat /tmp/dd.log)"
	fi
	net_up eth0 "${moat_ip:-}"
	want "the network is up before" 1 "$(cat /sys/class/net/eth0/carrier)"
	out "break the rest"
	for i in $(seq 60); do
		[ "$(cat /sys/class/net/eth0/carrier)" = 0 ] && break
		sleep 0.5
	done
	want "the network's cable is pulled" 0 "$(cat /sys/class/net/eth0/carrier)"
	want_match "a read of a truncated disk fails" "*Input/output error*" \
		"$(dd if="$disk" of=/dev/null bs=64k skip=512 count=1 iflag=direct 2>&1)"
	if dd if="$disk" of=/dev/null bs=64k count=1 iflag=direct 2>/tmp/dd.log; then
		pass "a read of what is left works"
	else
		fail "a read of what is left works: $(cat /tmp/dd.log)"
	fi
}

# A guest that only waits: for tests of signals.
test_wait() {
	out "waiting"
	while :; do sleep 10; done
}

test_smp() { check_cpus; }

# A disk with several queues, each used by a CPU of its own.
test_queues() {
	local dev cpu
	dev=$(disk disk)
	want "the disk has as many queues as it was given" "$moat_cpus" \
		"$(ls "/sys/block/${dev##*/}/mq" | wc -l)"
	for cpu in $(seq 0 $((moat_cpus - 1))); do
		echo 3 > /proc/sys/vm/drop_caches
		want "64 MiB read through queue $cpu have the host's checksum" "$moat_sum" \
			"$(taskset "$((1 << cpu))" dd if="$dev" bs=1M count=64 2>/dev/null |
				sha256sum | cut -d' ' -f1)"
	done
}

# The vCPU has what the host's processor has.
test_features() {
	local feature
	for feature in sve paca pacg; do
		want "the CPU has $feature" yes \
			"$(grep -qw "$feature" /proc/cpuinfo && echo yes)"
	done
	want_match "it has performance counters" "*armv8_pmuv3*" \
		"$(echo /sys/bus/event_source/devices/armv8*)"
}
