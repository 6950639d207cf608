#include "vmm/config.h"

#include <string.h>

/* The texts of `moat help`: for somebody tired, one screen each. */

static const char help_moat[] =
	"moat runs a Linux virtual machine whose devices sit behind an IOMMU.\n"
	"\n"
	"  moat run --kernel FILE [OPTION]...   run a machine until the guest ends\n"
	"  moat help run                        all options, with an example\n"
	"  moat version                         the version\n"
	"\n"
	"Exit status: 0 the guest powered off, 3 it reset itself, 1 the host failed,\n"
	"2 wrong usage.\n";

static const char help_run[] =
	"moat run --kernel FILE [OPTION]...\n"
	"\n"
	"Boot\n"
	"  --kernel FILE      bzImage or an ELF with a PVH note; arm64: Image, Image.gz\n"
	"  --initrd FILE      initial RAM disk\n"
	"  --cmdline TEXT     added to \"console=ttyS0 panic=-1\" (arm64: ttyAMA0)\n"
	"Machine\n"
	"  --cpus N           1 to 240; default 1\n"
	"  --memory SIZE      default 512M; a bare number is bytes, K M G are 1024s\n"
	"  --on-reset exit|reboot   when the guest resets; default exit (status 3)\n"
	"Devices\n"
	"  --disk path=FILE   a raw image or block device; [,readonly=on] [,id=NAME]\n"
	"                     [,queues=N] (1 to 16) [,queue-size=N] (4 to 1024)\n"
	"  --net user         network without privileges; the host is 10.0.2.2\n"
	"  --net tap=IFNAME   a tap interface; [,mac=ADDR] [,id=NAME]\n"
	"                     (VMs that share a bridge need mac= each)\n"
	"  --rng              a source of random numbers\n"
	"  --vfio BDF         a PCI device of the host that is bound to vfio-pci, as\n"
	"                     0000:01:00.0; [,iommu=on|off|NAME] [,id=NAME]; repeats\n"
	"  --vfio-backend auto|iommufd|type1   how the host's IOMMU is programmed;\n"
	"                     default auto: iommufd where the host has it\n"
	"      --disk and --net repeat, and take ,bus=pci|mmio (default pci)\n"
	"      and ,iommu=on|off|NAME. A comma in a value is written twice.\n"
	"IOMMU\n"
	"  --viommu[=KEY=VALUE,...]   put every device behind a virtio-iommu\n"
	"      bus=pci|mmio        where it sits; default pci\n"
	"      bypass=on|off       DMA before a driver attaches; default off: refused\n"
	"      address-width=BITS  32 to 64; default 48\n"
	"      granule=SIZE        4K to 1G, at most the guest's pages; default 4K\n"
	"      max-mappings=N      a domain, then MAP fails with NOMEM; default 1048576\n"
	"      name=NAME           for iommu=NAME of devices: --viommu repeats, up to 4;\n"
	"          other devices are behind the one without a name, else the first\n"
	"  --max-mappings N   in all IOMMUs together; default 4194304\n"
	"Terminal\n"
	"  --console stdio|none|file=PATH   the serial port; default stdio\n"
	"      Ctrl-A X quits, Ctrl-A C sends a break, Ctrl-A A a Ctrl-A\n"
	"  --verbose          print what is built, and how long it took\n"
	"  --dump-tables DIR  write the firmware tables into DIR: ACPI (read it with\n"
	"                     iasl -d) on x86_64, the device tree (dtc) on aarch64\n"
	"\n"
	"SIGTERM or SIGINT presses the power button; a second one ends moat.\n"
	"SIGUSR2 compares the mappings of --vfio devices with what the host has.\n"
	"Exit status: 0 powered off, 3 reset, 1 the host failed, 2 wrong usage.\n"
	"\n"
	"Example:\n"
	"  moat run --kernel vmlinuz --initrd initrd.img --cmdline root=/dev/vda1 \\\n"
	"           --memory 2G --disk path=disk.img --net user --viommu\n";

static const char help_help[] = "moat help [COMMAND]   print help, on COMMAND or on all of moat\n";
static const char help_version[] = "moat version   print the version\n";

const char *config_help(const char *command)
{
	static const struct {
		const char *command, *text;
	} texts[] = {
		{ "run", help_run },
		{ "help", help_help },
		{ "version", help_version },
	};

	if (!command)
		return help_moat;
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		if (!strcmp(command, texts[i].command))
			return texts[i].text;
	return NULL;
}
