# Sourced by the other scripts: where the real parts are kept, and how they are
# kept. A part is built in a directory of its own and moved into place when it
# is whole, so a cache never holds half a part, and two runs may race.
#
# Every part script prints where its part is, and gets it first if need be.
# With --have it only looks: it fails when the part is not there.

cache=${KMIRROR_CACHE:-$HOME/.cache/kmirror}
here=$(cd "$(dirname "$0")" && pwd)

# stop MESSAGE ends the script: the part cannot be had, and this is why.
stop() {
	echo "$(basename "$0"): $1" >&2
	exit 1
}

# need COMMAND PACKAGE stops unless the command is there.
need() {
	command -v "$1" >/dev/null 2>&1 || stop "$1 is not installed (Debian: apt-get install $2)"
}

# scratch NAME prints a new directory on the cache's own file system.
scratch() {
	mkdir -p "$cache" && mktemp -d "$cache/.$1.XXXXXX"
}

# place FROM TO moves a finished part into the cache; the first one there stays.
place() {
	mkdir -p "$(dirname "$2")"
	mv -T "$1" "$2" 2>/dev/null || rm -rf "$1"
	[ -e "$2" ] || stop "cannot write $2"
}
