# shellcheck shell=bash disable=SC2034,SC2154
# A test of vfio-tests: two functions of one device, of which one has an option ROM. They are in one
# IOMMU group, and have no reset but their bus's.
pair=0000:01:00

_shared() {
	local rom resets=0 count=/tmp/$name.count options=()
	alone_refused
	bind virtio-pci "$pair.0"
	rom=$(rom_of "$pair.0")
	bind vfio-pci "$pair.0"
	bind vfio-pci "$pair.1"
	truncate -s 1M "$count"
	# The kernel that is built for iommufd can't be traced: there moat's word is taken for it.
	if ! trace_resets; then options+=(--verbose); fi
	start 6.12-cloud "moat.test=shared moat.romsum=${rom% *}" --viommu --on-reset reboot \
		"${options[@]}" --disk "path=$count,id=count" --vfio "$pair.0,id=a" --vfio "$pair.1,id=b"
	wait_for "boot 2"
	resets=$(bus_resets)
	wait_for "times a domain is attached"
	want_audited
	ended
	want "the guest's kernel came up twice" 2 "$(grep -c 'MOAT-GUEST: init' "$dir/console")"
	want "their bus was reset once in between" 1 "$resets"
	want "nothing is amiss" 0 "$(grep -cE "can't|refused" "$dir/stderr")"
	[ ${#options[@]} != 0 ] || want "moat has nothing else to tell" 0 "$(grep -vc audit "$dir/stderr")"
	want "the option ROM has 8 KiB" 8192 "${rom#* }"
	bind virtio-pci "$pair.0"
	bind virtio-pci "$pair.1"
}

# One of them can't be passed through while the host uses the other.
alone_refused() {
	bind vfio-pci "$pair.0"
	bind virtio-pci "$pair.1"
	start 6.12-cloud "moat.test=shared" --viommu --vfio "$pair.0,id=a"
	finish
	want "one alone is refused" 1 "$got"
	want_line "what else is in its group is named" \
		"$pair.0 shares IOMMU group [0-9]+ with .*: $pair.1 \(virtio-pci\)$"
	note "$(< "$dir/stderr")"
}

# The sha256 and the size of a function's option ROM.
rom_of() {
	local rom=/sys/bus/pci/devices/$1/rom
	echo 1 > "$rom"
	echo "$(sha256sum < "$rom" | cut -d' ' -f1) $(wc -c < "$rom")"
	echo 0 > "$rom"
}

# From now on the kernel's resets of buses are counted; fails when it can't.
tracing=/sys/kernel/tracing
trace_resets() {
	[ -e $tracing/current_tracer ] || mount -t tracefs tracing $tracing 2>/dev/null || return
	echo pci_reset_bus > $tracing/set_ftrace_filter && echo function > $tracing/current_tracer
}
bus_resets() {
	if [ ${#options[@]} = 0 ]; then
		grep -c ' pci_reset_bus <-' $tracing/trace
	else
		grep -c "$pair.[01] was reset with its bus" "$dir/stderr"
	fi
}
