# shellcheck shell=dash disable=SC2034,SC2154
# What the guests of tests/lab/vfio-tests check, from inside. guest/init explains
# pass, fail, want and the moat_NAME variables from the kernel command line:
#
#   moat.sum       sha256 of the NVMe disk's first 64 MiB (nvme_reboots: 8)
#   moat.type      expected type of its IOMMU group, a pattern ("none": no group)
#   moat.disksum   sha256 of the virtio disk's 64 MiB
#   moat.netsum    sha256 of the file that the host's network serves
#   moat.irq       what kind of interrupt a network function has, as /proc/interrupts says it
#   moat.cycles    how many times to do it
#   moat.limit     how many mappings the host takes
#   moat.serial    the NVMe controller's serial number
#   moat.romsum    sha256 of a network function's option ROM

nvme=/dev/nvme0n1
nvme_there() {
	local _
	for _ in $(seq 100); do
		[ ! -b $nvme ] || return 0
		sleep 0.1
	done
	fail "the NVMe disk is there: $(ls /sys/bus/pci/devices)"
	return 1
}
nvme_path() { readlink -f /sys/class/nvme/nvme0/device; }

# The host knows its first 64 MiB, and will look for them in the second.
test_nvme() {
	nvme_there || return
	want_match "its group is of type $moat_type" "$moat_type" "$(group_type "$(nvme_path)")"
	want "64 MiB of it have the host's checksum" "$moat_sum" "$(sum_of $nvme 64)"
	if dd if=$nvme of=$nvme bs=1M count=64 seek=64 conv=fsync,notrunc 2>/tmp/dd.log; then
		pass "64 MiB are written"
	else
		fail "64 MiB are written: $(tail -n 1 /tmp/dd.log)"
	fi
}

# Beside a virtio disk, which has another IOMMU.
test_nvme_beside() {
	local path
	test_nvme
	path=$(endpoint_of_disk "$(disk disk)")
	want_match "the virtio disk's group is of type $moat_type" "$moat_type" "$(group_type "$path")"
	want "64 MiB of the virtio disk have the host's checksum" "$moat_disksum" \
		"$(sum_of "$(disk disk)" 64)"
	want "each is behind an IOMMU of its own" 2 \
		"$( (readlink -f "$path/iommu"; readlink -f "$(nvme_path)/iommu") | sort -u | wc -l)"
}

# Without a driver for the IOMMU the controller can't read its queues.
test_nvme_absent() {
	sleep 40
	if [ -b $nvme ]; then fail "there is no NVMe disk: there is"; else pass "there is no NVMe disk"; fi
}

# Until the host has had enough.
test_nvme_busy() {
	nvme_there || return
	while dd if=$nvme of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null; do
		out "busy"
	done
}

# The host takes it away meanwhile: reads fail, and the guest goes on.
test_nvme_taken() {
	local path
	nvme_there || return
	path=$(nvme_path)
	while within 90 dd if=$nvme of=/dev/null bs=1M count=8 iflag=direct 2>/tmp/dd.log; do
		out "busy"
	done
	want_match "a read fails when it is gone" "*error*" "$(cat /tmp/dd.log)"
	want "its configuration space reads as all ones" ffff \
		"$(head -c 2 "$path/config" 2>/dev/null | od -An -tx2 | tr -d ' ')"
}

# The driver leaves the device and takes it again; in between the group gets a domain
# of another type now and then.
test_nvme_cycles() {
	local path bdf i sum good=0
	nvme_there || return
	path=$(nvme_path) bdf=${path##*/}
	sum=$(sum_of $nvme 1)
	out "idle before"
	sleep 5
	for i in $(seq "$moat_cycles"); do
		echo "$bdf" > /sys/bus/pci/drivers/nvme/unbind
		case $i in
		*5) echo identity ;;
		*[02468]) echo DMA-FQ ;;
		*) echo DMA ;;
		esac > "$path/iommu_group/type"
		echo "$bdf" > /sys/bus/pci/drivers/nvme/bind
		nvme_there || break
		[ "$(sum_of $nvme 1)" = "$sum" ] || break
		good=$i
		case $i in *0) out "cycle $i of $moat_cycles" ;; esac
	done
	want "the driver leaves and comes back $moat_cycles times" "$moat_cycles" "$good"
	out "idle after"
	sleep 5
	want "64 MiB of it have the host's checksum" "$moat_sum" "$(sum_of $nvme 64)"
}

# The disk counts the boots, at 192 MiB.
test_nvme_reboots() {
	local count
	nvme_there || return
	count=$(dd if=$nvme bs=1M skip=192 count=1 iflag=direct 2>/dev/null | head -c 8 | tr -cd '0-9')
	count=$((${count:-0} + 1))
	{ echo $count; cat /dev/zero; } | head -c 4096 |
		dd of=$nvme bs=1M seek=192 conv=fsync,notrunc 2>/dev/null
	want "boot $count: 8 MiB have the host's checksum" "$moat_sum" "$(sum_of $nvme 8)"
	if [ $count -lt "$moat_cycles" ]; then
		moat_end=reboot
	else
		# The host looks at what is mapped.
		sleep 4
	fi
}

# A network function: DHCP, pings and a file, by interrupts of the expected kind.
test_nic() {
	local irqs
	if ! net_up eth0; then
		fail "the network is up: $(tail -n 1 /run/dhcp.log 2>/dev/null)"
		return
	fi
	pass "the network is up ($(ip -4 -o addr show eth0 | awk '{ print $4 }'))"
	want_match "its group is of type DMA*" "DMA*" \
		"$(group_type "$(readlink -f /sys/class/net/eth0/device)")"
	if within 30 ping -c 20 -i 0.1 -s 1400 10.0.2.2 > /tmp/ping.log 2>&1; then
		pass "the host answers pings"
	else
		fail "the host answers pings: $(tail -n 2 /tmp/ping.log)"
	fi
	if within 250 tftp -g -r net.bin -l /tmp/net.bin -b 1468 10.0.2.2 > /tmp/tftp.log 2>&1; then
		want "4 MiB arrive intact" "$moat_netsum" "$(sha256sum < /tmp/net.bin | cut -d' ' -f1)"
	else
		fail "4 MiB arrive intact: only $(stat -c %s /tmp/net.bin) bytes do $(tail -n 1 /tmp/tftp.log)"
	fi
	irqs=$(grep eth0 /proc/interrupts | grep -c "$moat_irq")
	out "$(grep eth0 /proc/interrupts | tr -s ' ' | tr '\n' ';')"
	want_match "its interrupts are of kind $moat_irq" "[1-9]*" "$irqs"
}

# Two network functions of one device. The disk "count" counts the boots, of which there are two.
test_shared() {
	local first second slot count nic
	first=$(endpoint_of_net eth0) second=$(endpoint_of_net eth1) slot=${first%.*}
	count=$(dd if="$(disk count)" bs=512 count=1 iflag=direct 2>/dev/null | tr -cd '0-9')
	count=$((${count:-0} + 1))
	{ echo $count; cat /dev/zero; } | head -c 512 |
		dd of="$(disk count)" conv=fsync,notrunc 2>/dev/null
	want "boot $count: they are the functions of one slot" "$slot.0 $slot.1" \
		"$(printf '%s\n' "$first" "$second" | sort | xargs)"
	want "boot $count: and one group" "${slot##*/}.0 ${slot##*/}.1" \
		"$(cd "$first/iommu_group/devices" && echo *)"
	[ $count = 1 ] || group_moves "$slot.0" "$slot.1"
	for nic in eth0 eth1; do
		if net_up $nic &&
			within 30 ping -c 20 -i 0.1 -s 1400 -I $nic 10.0.2.2 > /tmp/ping.log 2>&1; then
			pass "boot $count: the host answers pings through $nic"
		else
			fail "boot $count: the host answers pings through $nic: $(tail -n 2 /tmp/ping.log)"
		fi
		# The other's network has the same addresses. It stays up.
		ip addr flush dev $nic
	done
	echo 1 > "$slot.0/rom"
	want "boot $count: the option ROM is the host's" "$moat_romsum" \
		"$(sha256sum < "$slot.0/rom" | cut -d' ' -f1)"
	echo 0 > "$slot.0/rom"
	# Both are in use when the machine is reset.
	[ $count = 2 ] || moat_end=crash
}

# group_moves PATH...: the group of these functions is given to a program, which moves it from
# domain to domain; then they are with their driver again.
group_moves() {
	local path
	for path; do give vfio-pci "$path"; done
	/scripts/vfio-user attach "${path##*/}" "$(group_of "$path")" - ||
		fail "vfio-user attach comes to its end: status $?"
	for path; do give virtio-pci "$path"; done
}

# give DRIVER PATH: a function to a driver, whatever drives it now.
give() {
	local bdf=${2##*/}
	# There is no interrupt remapping in a virtio-iommu.
	echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
	echo "$bdf" > "$2/driver/unbind"
	echo "$1" > "$2/driver_override"
	echo "$bdf" > /sys/bus/pci/drivers_probe
	want "$1 has $bdf" "$1" "$(basename "$(readlink -f "$2/driver")")"
}

# user_runs MODE ARGUMENT...: the controller is given to vfio-pci, and to tests/lab/vfio-user.c;
# then to its driver again.
user_runs() {
	local path bdf mode=$1
	shift
	nvme_there || return
	path=$(nvme_path) bdf=${path##*/}
	give vfio-pci "$path"
	want "its group is its own" "$bdf" "$(ls "$path/iommu_group/devices")"
	/scripts/vfio-user "$mode" "$bdf" "$(group_of "$path")" "$moat_serial" "$@" ||
		fail "vfio-user $mode comes to its end: status $?"
	give nvme "$path"
	nvme_there || return
	want "the kernel's driver has it again: 64 MiB have the host's checksum" "$moat_sum" \
		"$(sum_of $nvme 64)"
}

test_user() { user_runs all; }
test_limit() { user_runs limit "$moat_limit"; }
test_peer() { user_runs peer; }
