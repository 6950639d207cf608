# shellcheck shell=dash disable=SC2034,SC2154
# What the quick start shows, seen from inside the guest.

test_shell() { moat_end=shell; echo "No moat.test= on the command line: here is a shell."; }

test_demo() {
	local group dev type vda
	echo
	echo "Linux $(uname -r), $(nproc) CPUs, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
	echo
	echo "IOMMU groups:"
	for group in /sys/kernel/iommu_groups/*; do
		type=$(cat "$group/type" 2>/dev/null)
		[ -n "$type" ] || continue
		echo "  group ${group##*/}, $type"
		for dev in "$group"/devices/*; do
			echo "    ${dev##*/}  $(describe "$dev")"
		done
		sed 's/^/      reserved /' "$group/reserved_regions"
	done
	echo
	vda=$(disk demo)
	[ -n "$vda" ] || { fail "the disk: not found"; return; }
	want_match "the disk is translated" "DMA*" "$(group_type "$(endpoint_of_disk "$vda")")"
	want_match "the network card is translated" "DMA*" "$(group_type "$(endpoint_of_net eth0)")"
	want "the disk's 64 MiB have the checksum that the host computed" \
		"$moat_sum" "$(sum_of "$vda" 64)"
	net_up eth0
	echo "eth0: $(ip -4 -o addr show eth0 | awk '{ print $4 }')"
	want "10 MiB by HTTP arrive intact" "$moat_netsum" "$(fetch_sum "$moat_url")"
}

# describe DEVICE: which driver has it, by way of virtio's own bus.
describe() {
	local virtio
	for virtio in "$1"/virtio*; do
		[ -e "$virtio/driver" ] && basename "$(readlink "$virtio/driver")"
	done
}
