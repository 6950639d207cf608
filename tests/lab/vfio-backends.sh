# shellcheck shell=bash disable=SC2034,SC2154
# The tests of vfio-tests that only one of the host's interfaces to its IOMMU can show: Type1's,
# then iommufd's.

# The host's limit on mappings is met: one line says so, the guest goes on.
_limit() {
	local limit=300 parameter=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit was
	fill_disk
	was=$(< $parameter)
	echo $limit > $parameter
	bind vfio-pci "$nvme"
	start 6.12-cloud "moat.test=limit moat.limit=$limit moat.serial=lab" --viommu \
		--vfio "$nvme,id=nvme"
	wait_for "mappings made"
	want_audited
	ended
	echo "$was" > $parameter
	want "one line says which limit, and how to raise it" 1 \
		"$(grep -c "takes no more than $limit mappings .* raise dma_entry_limit" "$dir/stderr")"
	want "in as many lines" 1 "$(grep -vc audit "$dir/stderr")"
	want_usable
}

# A device's registers, mapped for a device's DMA.
_peer() {
	peer_guest type1
	want "nothing is refused" 0 "$(grep -c refuse "$dir/stderr")"
}

# Without CAP_IPC_LOCK the limit on locked memory counts: one line says so, the guest goes on.
_memlock() {
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

# A device's registers: iommufd can't.
_peer_refused() {
	peer_guest iommufd
	want_line "it is refused, and says so" "another device's registers .* iommufd can't: refused"
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
