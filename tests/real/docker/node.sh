#!/bin/sh
# The first process of a container that stands for a host: an sshd, and a Docker daemon of its own.
mkdir -p /run/sshd /var/run /tmp /var/tmp
chmod 1777 /tmp
mount -o remount,rw /sys/fs/cgroup
for c in /sys/fs/cgroup/*; do [ -L "$c" ] || mount -o remount,rw,bind "$c"; done
/usr/sbin/sshd -f /node/sshd_config -E /node/sshd.log
export TMPDIR=/node # where a containerd that is slow to end writes its stacks
exec dockerd --data-root /node/data --exec-root /run/docker --pidfile /run/docker.pid --iptables=false --ip6tables=false \
  --bridge none >/node/dockerd.log 2>&1
