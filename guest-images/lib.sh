# shellcheck shell=bash
# What every recipe shares. Source it; it changes nothing by itself.
#
# Everything that is fetched or built ends up in one cache directory, .cache/
# at the top of the tree or $MOAT_CACHE, and can be deleted at any time.
# Packages come from the Debian mirror that this machine already uses; lists
# of other suites live in the cache, so the system's own apt state (its lists,
# its sources, its installed packages) is never touched by a recipe.

MOAT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MOAT_CACHE=${MOAT_CACHE:-$MOAT_ROOT/.cache}
export MOAT_ROOT MOAT_CACHE

# say TEXT: progress, on stderr, because stdout carries results (paths).
say() { printf '%s\n' "$*" >&2; }

# die TEXT: one line that says what and what to do, then exit 1.
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need COMMAND...: fails with the names of all commands that are missing.
need() {
	local cmd missing=()
	for cmd in "$@"; do
		command -v "$cmd" >/dev/null || missing+=("$cmd")
	done
	[ ${#missing[@]} -eq 0 ] || die "missing: ${missing[*]} (tests/run installs them)"
}

# debian_suite: the code name of this machine's release, "bookworm" for one.
debian_suite() {
	local id codename
	id=$(. /etc/os-release && echo "${ID:-}")
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	[ "$id" = debian ] || die "these recipes know Debian 12 and 13, not '${id:-unknown}'"
	echo "$codename"
}

# suite_of_kernel VERSION: which suite has that Linux, "6.12" for one.
suite_of_kernel() {
	case $1/$(debian_suite) in
	6.1/*) echo bookworm ;;
	6.12/bookworm) echo bookworm-backports ;;
	6.12/*) echo trixie ;;
	*) die "don't know which suite has Linux $1" ;;
	esac
}

# install_packages NAME...: from the machine's own suite, only what is missing.
install_packages() {
	local name missing=()
	for name in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
			missing+=("$name")
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	[ "$(id -u)" = 0 ] || die "not root: install these first: ${missing[*]}"
	say "installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2
	apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2 ||
		die "apt-get could not install: ${missing[*]}"
}

# apt_for SUITE ARCH TOOL ARGUMENT...: runs an apt tool (apt-get, apt-cache)
# that sees only SUITE and, for a backports suite, the release under it. Its
# lists are private to the pair of suite and architecture; the mirror's address
# is taken from the sources that the machine has. The status file is empty, so
# that a download includes every dependency, whatever is installed here.
apt_for() {
	local suite=$1 arch=$2 tool=$3 state mirror key s
	shift 3
	state=$MOAT_CACHE/apt/$suite-$arch
	mkdir -p "$state/none" "$state/lists/partial" "$state/cache/archives/partial"
	if [ ! -s "$state/sources.list" ]; then
		# The first archive that serves the machine's own suite.
		mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' \
			'Created-By: Packages' |
			awk -v suite="$(debian_suite)" '$2 == suite { print $1; exit }')
		[ -n "$mirror" ] || die "no apt source for $(debian_suite): cannot tell the mirror"
		key=/usr/share/keyrings/debian-archive-keyring.gpg
		for s in "${suite%-backports}" "$suite"; do
			echo "deb [signed-by=$key] $mirror $s main"
		done | uniq > "$state/sources.list"
		: > "$state/status"
	fi
	"$tool" -qq -o Dir::Etc::sourcelist="$state/sources.list" \
		-o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=/dev/null \
		-o Dir::Etc::preferencesparts="$state/none" \
		-o Dir::State="$state" -o Dir::State::Lists="$state/lists" \
		-o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
		-o Debug::NoLocking=1 -o APT::Sandbox::User=root \
		-o APT::Architecture="$arch" -o APT::Architectures::="$arch" \
		"$@"
}

# with_lock NAME COMMAND...: one at a time among all users of this cache.
with_lock() {
	local name=$1
	shift
	mkdir -p "$MOAT_CACHE"
	(
		flock 9
		"$@"
	) 9> "$MOAT_CACHE/.lock-$name"
}

# module_closure KERNELDIR MODULE...: files of the modules and of all they
# depend on, in an order in which insmod accepts them. Names that are built
# into the kernel are skipped; unknown ones are an error, unless they start
# with a question mark ("?overlay").
module_closure() {
	local dir=$1
	shift
	awk -v want="$*" '
	function key(path,    n) {
		n = path
		sub(/.*\//, "", n); sub(/\.ko.*/, "", n); gsub(/-/, "_", n)
		return n
	}
	function visit(name,    i, n, d) {
		if (name in done) return
		done[name] = 1
		# modules.dep lists dependencies nearest first.
		n = split(deps[name], d, " ")
		for (i = n; i > 0; i--) visit(key(d[i]))
		print file[name]
	}
	FILENAME ~ /builtin/ { builtin[key($1)] = 1; next }
	{
		path = $1; sub(/:$/, "", path)
		file[key(path)] = path
		$1 = ""; deps[key(path)] = $0
	}
	END {
		n = split(want, w, " ")
		for (i = 1; i <= n; i++) {
			name = w[i]; optional = sub(/^\?/, "", name); gsub(/-/, "_", name)
			if (name in file) visit(name)
			else if (!(name in builtin) && !optional) {
				print "no module " w[i] > "/dev/stderr"; exit 1
			}
		}
	}' "$dir/modules/modules.builtin" "$dir/modules/modules.dep"
}

# copy_module KERNELDIR FILE DEST: busybox insmod reads no compressed modules.
copy_module() {
	local dest
	dest=$3/$(basename "$2")
	case $2 in
	*.xz) xz -dc "$1/modules/$2" > "${dest%.xz}" ;;
	*.zst) zstd -qdc "$1/modules/$2" > "${dest%.zst}" ;;
	*) cp "$1/modules/$2" "$dest" ;;
	esac
}

# fetch_busybox ARCH: prints the path of a static busybox.
fetch_busybox() {
	local dir=$MOAT_CACHE/busybox-$1
	if [ ! -x "$dir/busybox" ]; then
		with_lock busybox unpack_packages "$(debian_suite)" "$1" "$dir.tmp" busybox-static
		mkdir -p "$dir"
		cp "$(find "$dir.tmp" -path '*/bin/busybox')" "$dir/busybox.new"
		mv "$dir/busybox.new" "$dir/busybox"
		rm -rf "$dir.tmp"
	fi
	echo "$dir/busybox"
}

# serve_paced BUSYBOX WWW NAME PAUSE: lets its httpd serve WWW/NAME, of 10 MiB, as cgi-bin/NAME,
# too: 256 KiB every PAUSE seconds. What a guest reads more slowly than it comes is what the
# passt of Debian 12 loses connections by (HACKING.md).
serve_paced() {
	mkdir -p "$2/cgi-bin"
	cat > "$2/cgi-bin/$3" <<-END
		#!$1 sh
		printf 'Content-Type: application/octet-stream\r\n\r\n'
		for i in \$($1 seq 0 39); do
			$1 dd if="../$3" bs=256K skip=\$i count=1 2>/dev/null
			$1 sleep $4
		done
	END
	chmod 755 "$2/cgi-bin/$3"
}

# unpack_packages SUITE ARCH DIR PACKAGE...: into DIR, without installing.
unpack_packages() {
	local suite=$1 arch=$2 dir=$3 debs deb
	shift 3
	apt_for "$suite" "$arch" apt-get update >&2
	debs=$(mktemp -d "$MOAT_CACHE/debs.XXXXXX")
	(cd "$debs" && apt_for "$suite" "$arch" apt-get download "$@" >&2) ||
		die "could not download $* from $suite"
	rm -rf "$dir"
	mkdir -p "$dir"
	for deb in "$debs"/*.deb; do
		dpkg -x "$deb" "$dir"
	done
	rm -rf "$debs"
}

# unpack_closure SUITE ARCH DIR EXCEPT PACKAGE...: the same with all that the
# packages depend on. EXCEPT: the packages to leave out, a regular expression.
unpack_closure() { with_lock "closure-$1-$2" unpack_closure_locked "$@"; }

unpack_closure_locked() {
	local suite=$1 arch=$2 dir=$3 except=$4 debs deb
	shift 4
	apt_for "$suite" "$arch" apt-get update >&2
	debs=$MOAT_CACHE/apt/$suite-$arch/cache/archives
	rm -f "$debs"/*.deb
	# By way of an installation that stops after the download.
	apt_for "$suite" "$arch" apt-get install -y --download-only \
		--no-install-recommends -t "$suite" "$@" >&2
	rm -rf "$dir"
	mkdir -p "$dir"
	for deb in "$debs"/*.deb; do
		[[ $(basename "$deb") =~ ^($except)_ ]] || dpkg -x "$deb" "$dir"
	done
	rm -f "$debs"/*.deb
}

# kvm_boots_linux: can this machine's /dev/kvm boot a stock kernel? It needs the
# processor's virtualization extension: the kvm_pvm module also serves a
# /dev/kvm, but interprets the guest's kernel, a million instructions a second.
# Says why not on stdout.
kvm_boots_linux() {
	if [ ! -e /dev/kvm ]; then
		echo "there is no /dev/kvm"
	elif [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
		echo "no right to open /dev/kvm"
	elif [ -e /sys/module/kvm_pvm ]; then
		echo "/dev/kvm is software (kvm_pvm)"
	elif [ "$(uname -m)" = x86_64 ] && ! grep -qwE 'svm|vmx' /proc/cpuinfo; then
		echo "the processor offers neither svm nor vmx"
	else
		return 0
	fi
	return 1
}

# hash_of FILE: its sha256, only the digits.
hash_of() { sha256sum "$1" | cut -d' ' -f1; }
