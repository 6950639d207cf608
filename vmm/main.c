#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "vmm/base/log.h"
#include "vmm/config.h"
#include "vmm/machine.h"

/* The subcommands; everything they do is elsewhere. */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Print @text; a full disk or a closed pipe is a failure like any other. */
static int print(const char *text)
{
	if (fputs(text, stdout) == EOF || fflush(stdout) == EOF) {
		log_error("can't write to standard output: %s", strerror(errno));
		return MOAT_EXIT_FAILURE;
	}
	return 0;
}

static int command_help(int argc, char *argv[])
{
	const char *text = config_help(argc ? argv[0] : NULL);

	if (!text || argc > 1) {
		log_error("'moat help' takes run, help or version");
		return MOAT_EXIT_USAGE;
	}
	return print(text);
}

static int command_version(int argc, char *argv[])
{
	if (argc) {
		log_error("'moat version' takes no arguments");
		return MOAT_EXIT_USAGE;
	}
	return print("moat " MOAT_VERSION "\n");
}

static int command_run(int argc, char *argv[], uint64_t start_ns)
{
	struct config config;
	struct err err = { 0 };

	int r = config_parse(&config, argc, argv, &err);

	if (r == CONFIG_HELP)
		return print(config_help("run"));
	if (r < 0) {
		log_error("%s", err.text);
		return r == -EINVAL ? MOAT_EXIT_USAGE : MOAT_EXIT_FAILURE;
	}
	if (config.verbose)
		log_set_level(LOG_INFO);

	enum moat_exit status = machine_run(&config, start_ns);

	config_finish(&config);
	return status;
}

/*
 * Started with one of 0, 1, 2 closed, the next file that moat opens would get
 * that number, and the guest's output or a log line would go into it.
 */
static void open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int main(int argc, char *argv[])
{
	uint64_t start_ns = now_ns();

	open_standard_fds();
	if (argc < 2) {
		fputs(config_help(NULL), stderr);
		return MOAT_EXIT_USAGE;
	}

	const char *command = argv[1];

	if (!strcmp(command, "run"))
		return command_run(argc - 2, argv + 2, start_ns);
	if (!strcmp(command, "help") || config_is_help(command))
		return command_help(argc - 2, argv + 2);
	if (!strcmp(command, "version") || !strcmp(command, "--version"))
		return command_version(argc - 2, argv + 2);
	log_error("there is no command '%.40s'; 'moat help' shows what there is", command);
	return MOAT_EXIT_USAGE;
}
