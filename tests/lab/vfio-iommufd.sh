# shellcheck shell=bash disable=SC2034,SC2154
# The tests of vfio-tests that depend on how the host's IOMMU is programmed: those of iommufd,
# in a lab whose kernel has it, and peer to peer with either.

_iommufd() {
	nvme_guest 6.12-cloud "moat.test=nvme moat.type=DMA*" --viommu --verbose
	want_audit
	want_line "auto takes iommufd" "host's $nvme, in VFIO group [0-9]+ by iommufd"
}
_iommufd_strict() {
	nvme_guest 6.12-cloud "moat.test=nvme moat.type=DMA iommu.strict=1" --viommu --verbose \
		--vfio-backend iommufd
	want_audit
}
_iommufd_off() {
	nvme_guest 6.12-cloud "moat.test=nvme moat.type=none" --verbose --vfio-backend iommufd
	want_audit
}

# Without CAP_IPC_LOCK the limit on locked memory counts: one line says so, the guest goes on.
_iommufd_memlock() {
	local pages=600 before
	# What a program is told instead of root's rights; some pages of it are moat's own.
	local as=(prlimit "--memlock=$((pages * 4096))" setpriv --bounding-set=-ipc_lock)
	fill_disk
	before=$(pins)
	guest 6.12-cloud "moat.test=limit moat.limit=$pages moat.serial=lab" --viommu \
		--verbose --vfio-backend iommufd --vfio "$nvme,id=nvme"
	want_line "one line says which limit, and how to raise it" \
		"locked memory is limited to $((pages * 4)) KiB; raise it"
	want "no more than that was pinned ($(most_locked) KiB)" yes \
		"$([ "$(most_locked)" -le $((pages * 4)) ] && echo yes)"
	want_audit
	want_unpinned "$before"
	want_usable
}

# A device's registers, mapped for a device's DMA: iommufd can't.
_iommufd_peer() {
	peer_guest iommufd
	want_line "it is refused, and says so" "another device's registers .* iommufd can't: refused"
}
_peer() {
	peer_guest type1
	want "nothing is refused" 0 "$(grep -c refuse "$dir/stderr")"
}
peer_guest() {
	fill_disk
	bind vfio-pci "$nvme"
	start 6.12-cloud "moat.test=peer moat.serial=lab" --viommu --verbose --vfio-backend "$1" \
		--vfio "$nvme,id=nvme"
	wait_for "peer mapped"
	kill -USR2 "$pid"
	ended
	want "the host's books were asked while it was mapped, and at the end" 2 \
		"$(grep -c 'audit of viommu' "$dir/stderr")"
	want_audit
	want_usable
}

# Whatever was asked of the host's books, they were right.
want_audit() {
	want "the host's books equal moat's ($(grep -o 'audit of .*' "$dir/stderr" | tail -n 1))" \
		yes "$(grep 'audit' "$dir/stderr" | grep -qv ' 0 differences' || echo yes)"
	want "they were asked" yes "$(grep -q 'audit of' "$dir/stderr" && echo yes)"
}
