#!/bin/sh
# Installs Peanuts Relay from this directory, or upgrades what it installed before:
# programs, plugins, units of systemd, manual pages, completions. A configuration that is
# there stays. Run it as root.
#
#   ./install.sh              install or upgrade, and start
#   ./install.sh --remove     stop and remove; configuration and queue stay
set -eu
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "install.sh: must be run as root" >&2; exit 1; }
if dpkg-query -W -f '${Status}\n' peanuts-relay 2>/dev/null | grep -q ' installed$'; then
  echo "install.sh: peanuts-relay is installed as a package: upgrade it with apt" >&2
  exit 1
fi
socket=peanuts-relay.socket
service=peanuts-relay.service

if [ "${1:-}" = --remove ]; then
  systemctl disable --now $socket $service
  find usr -type f | sed 's|^|/|' | xargs rm -f
  systemctl daemon-reload
  echo "removed; /etc/peanuts-relay and /var/lib/peanuts-relay stay"
  exit
fi

first=yes
[ ! -e /usr/lib/systemd/system/$service ] || first=no
# Beside each file and then over it, so that a program that runs is replaced and not written to.
find usr -type f | while read -r file; do
  mode=0644
  [ ! -x "$file" ] || mode=0755
  install -D -m "$mode" "$file" "/$file.new"
  mv -f "/$file.new" "/$file"
done
systemd-sysusers peanuts-relay.conf
systemd-tmpfiles --create peanuts-relay.conf
if [ ! -e /etc/peanuts-relay/config.yaml ]; then
  install -D -m 0640 -g peanuts-relay etc/peanuts-relay/config.yaml /etc/peanuts-relay/config.yaml
fi
systemctl daemon-reload
if [ $first = yes ]; then
  systemctl --quiet enable $socket $service
  systemctl start $socket $service
elif ! systemctl --quiet is-enabled $service; then
  : # whoever disabled it starts it
elif /usr/lib/peanuts-relay/may-restart; then
  systemctl start $socket
  systemctl restart $service
else
  exit 78
fi
echo "installed: $(/usr/bin/peanuts-relay version | head -n 1)"
