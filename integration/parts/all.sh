#!/bin/sh
# Gets every real part that the tests use. What cannot be had is named on
# standard error; the tests that need it say SKIP, or fail with KMIRROR_CI=1.
here=$(dirname "$0")
missing=0
for part in kafka consul clients; do
	"$here/$part.sh" >/dev/null || missing=1
done
if ! command -v kcat >/dev/null 2>&1; then
	echo "all.sh: kcat is not installed (Debian: apt-get install kcat)" >&2
	missing=1
fi
[ "$missing" = 0 ] || [ "${KMIRROR_CI:-}" != 1 ] || exit 1
