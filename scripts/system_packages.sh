#!/bin/sh
# Install the Debian packages named as arguments when root, else say which are missing. Never fails:
# the studio runs without them, and what needs one says so.
missing=""
for package in "$@"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing$missing"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 \
    || echo "could not install:$missing"
else
  echo "missing system packages:$missing (apt-get install$missing)"
fi
exit 0
