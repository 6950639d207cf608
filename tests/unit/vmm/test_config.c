#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/config.h"
#include "vmm/config_value.h"

/* Parse a command line written as words; the last is NULL. */
static int parse(struct config *config, struct err *err, char *const words[])
{
	int argc = 0;

	while (words[argc])
		argc++;
	*err = (struct err){ 0 };
	return config_parse(config, argc, words, err);
}

#define WORDS(...) ((char *[]){ __VA_ARGS__, NULL })

#define GOOD(config, ...)                                                                        \
	do {                                                                                     \
		struct err err_;                                                                 \
		cr_assert_eq(parse(config, &err_, WORDS("--kernel", "k", __VA_ARGS__)), 0, "%s", \
			     err_.text);                                                         \
	} while (0)

/* Refused with this one line, which is what the person sees. */
#define BAD(message, ...)                                                          \
	do {                                                                       \
		struct config config_;                                             \
		struct err err_;                                                   \
		cr_assert_eq(parse(&config_, &err_, WORDS(__VA_ARGS__)), -EINVAL); \
		cr_assert_str_eq(err_.text, message);                              \
	} while (0)

#define K "--kernel", "k"

Test(config, defaults)
{
	struct config c;

	GOOD(&c, "--verbose");
	cr_assert_str_eq(c.kernel, "k");
	cr_assert_null(c.initrd);
	cr_assert_str_eq(c.cmdline, "");
	cr_assert_eq(c.cpus, 1);
	cr_assert_eq(c.memory, MIB(512));
	cr_assert_eq(c.num_disks + c.num_nets, 0);
	cr_assert_eq(c.num_viommus, 0);
	cr_assert_not(c.rng);
	cr_assert_eq(c.console, CONFIG_CONSOLE_STDIO);
	cr_assert_not(c.reboot);
	cr_assert(c.verbose);
	config_finish(&c);
}

Test(config, a_full_command_line)
{
	struct config c;

	GOOD(&c, "--initrd", "i", "--cmdline", "quiet a=b", "--cpus", "16", "--memory", "4G",
	     "--disk", "path=a.img,readonly=on,bus=mmio,iommu=off,id=root", "--disk=path=b.img",
	     "--net", "user", "--net", "tap=tap0,mac=52:54:00:Ab:cd:eF,bus=mmio,iommu=on,id=lan",
	     "--viommu=bus=mmio,bypass=on,address-width=39,max-mappings=1000", "--max-mappings",
	     "2000", "--rng", "--console", "file=out.txt", "--on-reset", "reboot", "--dump-tables",
	     "d");
	cr_assert_str_eq(c.initrd, "i");
	cr_assert_str_eq(c.cmdline, "quiet a=b");
	cr_assert_eq(c.cpus, 16);
	cr_assert_eq(c.memory, GIB(4));
	cr_assert_eq(c.num_disks, 2);
	cr_assert_str_eq(c.disk[0].path, "a.img");
	cr_assert_str_eq(c.disk[0].id, "root");
	cr_assert(c.disk[0].readonly);
	cr_assert_eq(c.disk[0].bus, CONFIG_BUS_MMIO);
	cr_assert_eq(c.disk[0].iommu, CONFIG_NO_IOMMU);
	cr_assert_str_eq(c.disk[1].path, "b.img");
	cr_assert_str_eq(c.disk[1].id, "disk1");
	cr_assert_not(c.disk[1].readonly);
	cr_assert_eq(c.disk[1].bus, CONFIG_BUS_PCI);
	cr_assert_eq(c.disk[1].iommu, 0, "--viommu after it counts too");
	cr_assert_eq(c.num_nets, 2);
	cr_assert(c.net[0].user);
	cr_assert_null(c.net[0].tap);
	cr_assert_eq(c.net[0].iommu, 0);
	cr_assert_not(c.net[1].user);
	cr_assert_str_eq(c.net[1].tap, "tap0");
	cr_assert_arr_eq(c.net[1].mac, ((uint8_t[]){ 0x52, 0x54, 0, 0xab, 0xcd, 0xef }), 6);
	cr_assert_str_eq(c.net[1].id, "lan");
	cr_assert_eq(c.num_viommus, 1);
	cr_assert_eq(c.viommu[0].bus, CONFIG_BUS_MMIO);
	cr_assert(c.viommu[0].bypass);
	cr_assert_eq(c.viommu[0].address_width, 39);
	cr_assert_eq(c.viommu[0].max_mappings, 1000);
	cr_assert_eq(c.max_mappings, 2000);
	cr_assert(c.rng);
	cr_assert_eq(c.rng_iommu, 0);
	cr_assert_eq(c.console, CONFIG_CONSOLE_FILE);
	cr_assert_str_eq(c.console_file, "out.txt");
	cr_assert(c.reboot);
	cr_assert_str_eq(c.dump_tables, "d");
	config_finish(&c);
}

Test(config, viommu_alone_has_defaults)
{
	struct config c;

	GOOD(&c, "--viommu", "--rng", "--disk", "path=d");
	cr_assert_eq(c.num_viommus, 1);
	cr_assert_eq(c.viommu[0].bus, CONFIG_BUS_PCI);
	cr_assert_not(c.viommu[0].bypass);
	cr_assert_eq(c.viommu[0].address_width, 48);
	cr_assert_eq(c.viommu[0].granule, KIB(4));
	cr_assert_eq(c.viommu[0].max_mappings, 1 << 20);
	cr_assert_eq(c.max_mappings, 1 << 22);
	cr_assert_str_eq(c.viommu[0].name, "viommu");
	cr_assert_eq(c.disk[0].iommu, 0);
	config_finish(&c);

	GOOD(&c, "--rng", "--disk", "path=d");
	cr_assert_eq(c.disk[0].iommu, CONFIG_NO_IOMMU);
	cr_assert_eq(c.rng_iommu, CONFIG_NO_IOMMU);
	config_finish(&c);
}

Test(config, value_after_space_or_equals)
{
	struct config a, b;

	GOOD(&a, "--cpus", "3", "--cmdline", "x", "--net", "user", "--console", "none");
	GOOD(&b, "--cpus=3", "--cmdline=x", "--net=user", "--console=none");
	cr_assert_eq(a.cpus, b.cpus);
	cr_assert_str_eq(a.cmdline, b.cmdline);
	cr_assert_arr_eq(a.net[0].mac, b.net[0].mac, 6);
	cr_assert_eq(a.console, b.console);
	config_finish(&a);
	config_finish(&b);
	GOOD(&a, "--cmdline=--looks-like=an,option", "--console=file=a,b=c");
	cr_assert_str_eq(a.cmdline, "--looks-like=an,option");
	cr_assert_str_eq(a.console_file, "a,b=c", "no list: commas are only commas");
	config_finish(&a);
}

Test(config, doubled_commas_in_paths)
{
	struct config c;

	GOOD(&c, "--disk", "path=/a,,b=c,,,readonly=on", "--disk", "path=,,");
	cr_assert_str_eq(c.disk[0].path, "/a,b=c,");
	cr_assert(c.disk[0].readonly);
	cr_assert_str_eq(c.disk[1].path, ",");
	config_finish(&c);
}

Test(config, sizes)
{
	struct config c;

	GOOD(&c, "--memory", "16M");
	cr_assert_eq(c.memory, MIB(16));
	GOOD(&c, "--memory=65536k");
	cr_assert_eq(c.memory, MIB(64));
	GOOD(&c, "--memory=536870912");
	cr_assert_eq(c.memory, MIB(512), "a bare number is bytes");
	GOOD(&c, "--memory=512g");
	cr_assert_eq(c.memory, GIB(512));
	BAD("--memory 512: that is 512 bytes; did you mean 512M?", K, "--memory", "512");
	BAD("--memory takes a size from 16M to 65536G", K, "--memory", "15M");
	BAD("--memory takes a size from 16M to 65536G", K, "--memory", "0");
	BAD("--memory takes a size from 16M to 65536G", K, "--memory", "65537G");
	BAD("--memory takes a size from 16M to 65536G", K, "--memory",
	    "99999999999999999999999999999999");
	BAD("--memory '18014398509481985K': too large", K, "--memory", "18014398509481985K");
	BAD("--memory takes a multiple of 2M; the next one is 514M", K, "--memory", "513M");
	BAD("--memory takes a size such as 512M or 4G (K, M and G count in 1024s), not '1T'", K,
	    "--memory", "1T");
	BAD("--memory takes a size such as 512M or 4G (K, M and G count in 1024s), not '-1G'", K,
	    "--memory=-1G");
	BAD("--memory takes a size such as 512M or 4G (K, M and G count in 1024s), not 'M'", K,
	    "--memory=M");
	BAD("--memory takes a size such as 512M or 4G (K, M and G count in 1024s), not '1.5G'", K,
	    "--memory=1.5G");
}

Test(config, numbers)
{
	struct config c;

	GOOD(&c, "--cpus=240");
	cr_assert_eq(c.cpus, 240);
	BAD("--cpus takes a number from 1 to 240, not '0'", K, "--cpus", "0");
	BAD("--cpus takes a number from 1 to 240, not '241'", K, "--cpus", "241");
	BAD("--cpus takes a number from 1 to 240, not '4294967297'", K, "--cpus", "4294967297");
	BAD("--cpus takes a number from 1 to 240, not '18446744073709551617'", K, "--cpus",
	    "18446744073709551617");
	BAD("--cpus takes a number from 1 to 240, not '2x'", K, "--cpus", "2x");
	BAD("--cpus takes a number from 1 to 240, not ' 2'", K, "--cpus", " 2");
	BAD("--cpus takes a number from 1 to 240, not '+2'", K, "--cpus", "+2");
	BAD("--viommu: address-width= takes a number from 32 to 64, not '65'", K,
	    "--viommu=address-width=65");
}

Test(config, iommu_needs_viommu)
{
	BAD("--disk: iommu=on (of disk0) needs --viommu", K, "--disk", "path=d,iommu=on");
	BAD("--net: iommu=on (of lan) needs --viommu", K, "--net", "user,iommu=on,id=lan");
}

Test(config, several_iommus)
{
	struct config c;

	GOOD(&c, "--viommu=name=phys,granule=64K,bus=mmio", "--viommu=bypass=on", "--disk",
	     "path=a,iommu=phys", "--disk", "path=b,iommu=on", "--disk", "path=c,iommu=off",
	     "--disk", "path=d,iommu=viommu", "--net", "user,iommu=phys", "--rng");
	cr_assert_eq(c.num_viommus, 2);
	cr_assert_str_eq(c.viommu[0].name, "phys");
	cr_assert_eq(c.viommu[0].granule, KIB(64));
	cr_assert_eq(c.viommu[0].bus, CONFIG_BUS_MMIO);
	cr_assert_not(c.viommu[0].bypass);
	cr_assert_str_eq(c.viommu[1].name, "viommu");
	cr_assert_eq(c.viommu[1].granule, KIB(4));
	cr_assert(c.viommu[1].bypass);
	cr_assert_eq(c.viommu[1].address_width, 48);
	cr_assert_eq(c.disk[0].iommu, 0);
	cr_assert_eq(c.disk[1].iommu, 1, "the one without a name is the default");
	cr_assert_eq(c.disk[2].iommu, CONFIG_NO_IOMMU);
	cr_assert_eq(c.disk[3].iommu, 1);
	cr_assert_eq(c.net[0].iommu, 0);
	cr_assert_eq(c.rng_iommu, 1);
	config_finish(&c);

	GOOD(&c, "--disk", "path=a", "--disk", "path=b,iommu=two", "--viommu=name=one",
	     "--viommu=name=two");
	cr_assert_eq(c.disk[0].iommu, 0, "when all have names, the first is");
	cr_assert_eq(c.disk[1].iommu, 1);
	config_finish(&c);
}

Test(config, several_iommus_are_told_apart)
{
	BAD("--viommu is given twice without a name; tell them apart with name=NAME", K, "--viommu",
	    "--viommu");
	BAD("--viommu: the name a is already taken by a --viommu; give each its own with "
	    "name=NAME",
	    K, "--viommu=name=a", "--viommu=name=a");
	BAD("--viommu: the name viommu is already taken by a --viommu; give each its own with "
	    "name=NAME",
	    K, "--viommu", "--viommu=name=viommu");
	BAD("--disk: the id a is already taken by a --viommu; give each its own with id=NAME", K,
	    "--disk", "path=d,id=a", "--viommu=name=a");
	BAD("--disk: the id rng is already taken by a --rng; give each its own with id=NAME", K,
	    "--disk", "path=d,id=rng", "--rng");
	BAD("--viommu: name=off would mean something else in a device's iommu=off", K,
	    "--viommu=name=off");
	BAD("--viommu: name= takes up to 20 letters, digits, '.', '_' or '-', not 'a/b'", K,
	    "--viommu=name=a/b");
	BAD("--viommu: a machine has at most 4 IOMMUs", K, "--viommu=name=a", "--viommu=name=b",
	    "--viommu=name=c", "--viommu", "--viommu=name=e");
	BAD("--disk: iommu= of disk0 takes on, off or the name of a --viommu, not 'phis'; did you "
	    "mean phys?",
	    K, "--viommu=name=phys", "--disk", "path=d,iommu=phis");
	BAD("--net: iommu= of net0 takes on, off or the name of a --viommu, not 'yes'", K, "--net",
	    "user,iommu=yes");
}

Test(config, granules)
{
	struct config c;

	GOOD(&c, "--viommu=granule=4096");
	cr_assert_eq(c.viommu[0].granule, KIB(4));
	GOOD(&c, "--viommu=granule=1G");
	cr_assert_eq(c.viommu[0].granule, GIB(1));
	BAD("--viommu: granule= takes a power of two from 4K to 1G, not '2K'", K,
	    "--viommu=granule=2K");
	BAD("--viommu: granule= takes a power of two from 4K to 1G, not '12K'", K,
	    "--viommu=granule=12K");
	BAD("--viommu: granule= takes a power of two from 4K to 1G, not '2G'", K,
	    "--viommu=granule=2G");
	BAD("--viommu: granule= takes a power of two from 4K to 1G, not '0'", K,
	    "--viommu=granule=0");
	BAD("--viommu: granule= takes a size such as 512M or 4G (K, M and G count in 1024s), not "
	    "'big'",
	    K, "--viommu=granule=big");
}

Test(config, typing_errors_get_a_hint)
{
	BAD("unknown option '--kernle'; did you mean --kernel?", "--kernle", "k");
	BAD("unknown option '--mem'; did you mean --memory?", K, "--mem=1G");
	BAD("unknown option '-m'; did you mean --memory?", K, "-m", "1G");
	BAD("unknown option '-initrd'; did you mean --initrd?", K, "-initrd", "i");
	BAD("unknown option '--frobnicate'; 'moat help run' lists them", K, "--frobnicate");
	BAD("unknown option '--'; 'moat help run' lists them", K, "--");
	BAD("unexpected argument 'vmlinuz'; 'moat help run' shows how", "vmlinuz");
	BAD("unexpected argument 'bus=mmio'; a value of --viommu comes after a '=': "
	    "--viommu=...",
	    K, "--viommu", "bus=mmio");
	BAD("--disk has no key 'file'; it takes path, readonly, queues, queue-size, bus, iommu, "
	    "id",
	    K, "--disk", "file=d");
}

Test(config, lists_refuse_what_they_do_not_know)
{
	BAD("--disk has no key 'reedonly' (did you mean readonly?); it takes path, readonly, "
	    "queues, queue-size, bus, "
	    "iommu, id",
	    K, "--disk", "path=d,reedonly=on");
	BAD("--disk needs path=FILE", K, "--disk", "readonly=on");
	BAD("--disk: path needs a value: path=FILE", K, "--disk", "path=");
	BAD("--disk: readonly needs a value: readonly=on|off", K, "--disk", "path=d,readonly");
	BAD("--disk takes readonly=off or readonly=on, not 'yes'", K, "--disk",
	    "path=d,readonly=yes");
	BAD("--disk takes bus=pci or bus=mmio, not 'usb'", K, "--disk", "path=d,bus=usb");
	BAD("--disk: path is given twice", K, "--disk", "path=d,path=e");
	BAD("--net needs tap=IFNAME or user", K, "--net", "bus=pci");
	BAD("--net needs either tap=IFNAME or user", K, "--net", "user,tap=t");
	BAD("--net: user takes no value", K, "--net", "user=me");
	BAD("--net: tap= takes an interface's name of up to 15 characters, not 'a/b'", K, "--net",
	    "tap=a/b");
	BAD("--net: tap= takes an interface's name of up to 15 characters, not "
	    "'sixteen-letters-'",
	    K, "--net", "tap=sixteen-letters-");
	BAD("--viommu has no key 'width'; it takes name, bus, bypass, address-width, "
	    "granule, max-mappings",
	    K, "--viommu=width=48");
	BAD("--viommu has no key ''; it takes name, bus, bypass, address-width, "
	    "granule, max-mappings",
	    K, "--viommu=bypass=on,");
}

Test(config, missing_and_repeated)
{
	BAD("--kernel FILE is missing; 'moat help run' shows how", "--cpus", "1");
	BAD("--kernel needs a value: FILE", "--kernel");
	BAD("--kernel needs a value: FILE", "--kernel", "");
	BAD("--kernel needs a value: FILE (one that begins with -- after a '=')", "--kernel",
	    "--rng");
	BAD("--kernel is given twice", K, K);
	BAD("--rng takes no value", K, "--rng=yes");
	BAD("--viommu needs a value: name=NAME, bus=pci|mmio, bypass=on|off, address-width=BITS, "
	    "granule=SIZE, max-mappings=N",
	    K, "--viommu=");
	BAD("--console takes stdio, none or file=PATH, not 'tty'", K, "--console", "tty");
	BAD("--console takes stdio, none or file=PATH, not 'file='", K, "--console", "file=");
	BAD("--on-reset takes exit or reboot, not 'halt'", K, "--on-reset", "halt");
}

Test(config, macs)
{
	struct config a, b;

	BAD("--net: mac=53:54:00:12:34:56 is a multicast address; the first byte must be even", K,
	    "--net", "user,mac=53:54:00:12:34:56");
	BAD("--net: mac= can't be all zero", K, "--net", "user,mac=00:00:00:00:00:00");
	BAD("--net: mac= takes an address such as 52:54:00:12:34:56, not '52:54:00:12:34'", K,
	    "--net", "user,mac=52:54:00:12:34");
	BAD("--net: mac= takes an address such as 52:54:00:12:34:56, not '52:54:00:12:34:56:'", K,
	    "--net", "user,mac=52:54:00:12:34:56:");
	BAD("--net: mac= takes an address such as 52:54:00:12:34:56, not '52:54:00:12:34:5'", K,
	    "--net", "user,mac=52:54:00:12:34:5");
	BAD("--net: net0 and net1 have the same mac=; give each its own", K, "--net",
	    "user,mac=52:54:00:12:34:56", "--net", "user,mac=52:54:00:12:34:56");

	/* The default is the same in every run, and differs between cards. */
	GOOD(&a, "--net", "user", "--net", "user");
	GOOD(&b, "--net", "user", "--rng");
	cr_assert_arr_eq(a.net[0].mac, b.net[0].mac, 6);
	cr_assert_neq(memcmp(a.net[0].mac, a.net[1].mac, 6), 0);
	cr_assert_arr_eq(a.net[0].mac, ((uint8_t[]){ 0x52, 0x54, 0 }), 3);
	config_finish(&a);
	config_finish(&b);
}

Test(config, ids)
{
	BAD("--disk: the id a is already taken by a --disk; give each its own with id=NAME", K,
	    "--disk", "path=x,id=a", "--disk", "path=y,id=a");
	BAD("--net: the id a is already taken by a --disk; give each its own with id=NAME", K,
	    "--net", "user,id=a", "--disk", "path=y,id=a");
	BAD("--disk: the id disk1 is already taken by a --disk; give each its own with id=NAME", K,
	    "--disk", "path=x,id=disk1", "--disk", "path=y");
	BAD("--disk: id= takes up to 20 letters, digits, '.', '_' or '-', not 'a b'", K, "--disk",
	    "path=x,id=a b");
	BAD("--disk: id= takes up to 20 letters, digits, '.', '_' or '-', not "
	    "'abcdefghijklmnopqrstu'",
	    K, "--disk", "path=x,id=abcdefghijklmnopqrstu");
}

Test(config, limits_are_named)
{
	char *words[2 * (CONFIG_MAX_DISKS + 1) + 3] = { "--kernel", "k" };
	struct config c;
	struct err err;
	int n = 2;

	for (int i = 0; i < CONFIG_MAX_DISKS; i++) {
		words[n++] = "--disk";
		words[n++] = "path=d";
	}
	cr_assert_eq(parse(&c, &err, words), 0, "%s", err.text);
	cr_assert_eq(c.num_disks, CONFIG_MAX_DISKS);
	config_finish(&c);
	words[n++] = "--disk";
	words[n++] = "path=d";
	cr_assert_eq(parse(&c, &err, words), -EINVAL);
	cr_assert_str_eq(err.text, "--disk: a machine has at most 24 disks");
}

/* Whatever is typed, the error is one short line. */
Test(config, errors_are_one_line)
{
	char huge[4096];
	struct config c;
	struct err err;

	BAD("unknown option '--a?b?'; 'moat help run' lists them", "--a\nb\x1b");
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	memcpy(huge, "--", 2);
	cr_assert_eq(parse(&c, &err, WORDS(huge)), -EINVAL);
	cr_assert_lt(strlen(err.text), 160);
	cr_assert_eq(parse(&c, &err, WORDS("--disk", huge)), -EINVAL);
	cr_assert_lt(strlen(err.text), 160);
}

Test(config, failure_leaves_the_struct_alone)
{
	struct config c;
	struct err err;

	memset(&c, 0x5a, sizeof(c));
	cr_assert_eq(parse(&c, &err, WORDS(K, "--disk", "path=d", "--cpus", "x")), -EINVAL);
	for (size_t i = 0; i < sizeof(c); i++)
		cr_assert_eq(((uint8_t *)&c)[i], 0x5a);
}

/* The help names every option that exists, and fits the screen. */
Test(help, is_complete_and_fits)
{
	static const char *const options[] = { "--kernel",     "--initrd",   "--cmdline",
					       "--cpus",       "--memory",   "--disk",
					       "--net",	       "--viommu",   "--rng",
					       "--console",    "--on-reset", "--verbose",
					       "--dump-tables" };
	const char *text = config_help("run");
	unsigned lines = 0, column = 0;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		cr_assert_not_null(strstr(text, options[i]), "%s", options[i]);
	for (; *text; text++) {
		column = *text == '\n' ? 0 : column + 1;
		lines += *text == '\n';
		cr_assert_leq(column, 80);
	}
	cr_assert_leq(lines, 48);
	cr_assert_not_null(config_help(NULL));
	cr_assert_not_null(config_help("help"));
	cr_assert_not_null(config_help("version"));
	cr_assert_null(config_help("walk"));
}

Test(config, disk_queues)
{
	struct config c;

	GOOD(&c, "--disk", "path=a", "--disk", "path=b,queues=16,queue-size=1024");
	cr_assert_eq(c.disk[0].queues, 1);
	cr_assert_eq(c.disk[0].queue_size, 256);
	cr_assert_eq(c.disk[1].queues, 16);
	cr_assert_eq(c.disk[1].queue_size, 1024);
	BAD("--disk: queues= takes a number from 1 to 16, not '17'", K, "--disk",
	    "path=a,queues=17");
	BAD("--disk: queue-size= takes a number from 4 to 1024, not '2'", K, "--disk",
	    "path=a,queue-size=2");
	BAD("--disk: queue-size= takes a power of two, not '96'", K, "--disk",
	    "path=a,queue-size=96");
}

/* -h asks for help where an option may stand, not where its value does. */
Test(config, help)
{
	struct config c;
	struct err err;

	cr_assert_eq(parse(&c, &err, WORDS("--help")), CONFIG_HELP);
	cr_assert_eq(parse(&c, &err, WORDS(K, "--cpus", "2", "-h")), CONFIG_HELP);
	cr_assert_eq(parse(&c, &err, WORDS(K, "--cmdline", "-h")), 0);
	cr_assert_str_eq(c.cmdline, "-h");
	config_finish(&c);
}

Test(config, vfio)
{
	struct config c;

	GOOD(&c, "--viommu", "--viommu=name=phys", "--vfio", "0000:01:00.0,iommu=phys,id=nvme",
	     "--vfio", "1A:1f.7", "--vfio", "10000:e1:00.0,iommu=off");
	cr_assert_eq(c.num_vfios, 3);
	cr_assert_str_eq(c.vfio[0].bdf, "0000:01:00.0");
	cr_assert_str_eq(c.vfio[0].id, "nvme");
	cr_assert_eq(c.vfio[0].iommu, 1);
	cr_assert_str_eq(c.vfio[1].bdf, "0000:1a:1f.7");
	cr_assert_str_eq(c.vfio[1].id, "vfio1");
	cr_assert_eq(c.vfio[1].iommu, 0);
	cr_assert_str_eq(c.vfio[2].bdf, "10000:e1:00.0");
	cr_assert_eq(c.vfio[2].iommu, CONFIG_NO_IOMMU);
	config_finish(&c);
}

Test(config, vfio_backend)
{
	struct config c;

	GOOD(&c, "--rng");
	cr_assert_eq(c.vfio_backend, CONFIG_VFIO_AUTO);
	config_finish(&c);
	GOOD(&c, "--vfio-backend", "type1");
	cr_assert_eq(c.vfio_backend, CONFIG_VFIO_TYPE1);
	config_finish(&c);
	GOOD(&c, "--vfio-backend=iommufd", "--vfio", "01:00.0");
	cr_assert_eq(c.vfio_backend, CONFIG_VFIO_IOMMUFD);
	config_finish(&c);
	BAD("--vfio-backend takes auto, iommufd or type1, not 'group'", K, "--vfio-backend",
	    "group");
}

Test(config, vfio_refused)
{
	static const char *const wrong[] = { "0000:01:00", "1:2:3.4.5",	     "01:20.0",
					     "01:00.8",	   "nvme0n1",	     "+1:00.0",
					     "01:00.0x",   "100000:01:00.0", "001:00.0" };

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[100];

		snprintf(text, sizeof(text),
			 "--vfio takes a PCI address such as 0000:01:00.0, not '%s'", wrong[i]);
		BAD(text, K, "--vfio", (char *)wrong[i]);
	}
	BAD("--vfio needs a value: BDF", K, "--vfio");
	BAD("--vfio takes a PCI address such as 0000:01:00.0, not ''", K, "--vfio", ",id=x");
	BAD("--vfio: 0000:01:00.0 is given twice", K, "--vfio", "01:00.0", "--vfio",
	    "0000:01:00.0");
	BAD("--vfio has no key 'bus'; it takes iommu, id", K, "--vfio", "01:00.0,bus=pci");
	BAD("--vfio: iommu=on (of vfio0) needs --viommu", K, "--vfio", "01:00.0,iommu=on");
	BAD("--vfio: the id disk0 is already taken by a --disk; give each its own with id=NAME", K,
	    "--vfio", "01:00.0,id=disk0", "--disk", "path=d");
}
