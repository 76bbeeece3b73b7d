#!/bin/sh
# A machine of its own inside this one: systemd as the first process of fresh namespaces, and as its root a layer in memory
# over the root of the machine, so that packages and units come and go without a trace. It ends when it is killed.
#   machine.sh boot DIR    DIR/etc goes over its /etc; it starts rb.target
#   machine.sh clear DIR   removes what the kernel keeps of it
set -eu
verb=$1 dir=$2 me=$0
group=$dir/cgroup/runback-$(basename "$dir")

case $verb in
boot) exec unshare --mount --propagation private sh "$me" place "$dir" ;;
clear) exec unshare --mount --propagation private sh "$me" remove "$dir" ;;
place)
  mount -t cgroup2 cgroup2 "$dir/cgroup"
  mkdir "$group"
  echo $$ >"$group/cgroup.procs"
  exec unshare --pid --fork --kill-child=KILL --mount --uts --ipc --cgroup sh "$me" inside "$dir"
  ;;
remove)
  mount -t cgroup2 cgroup2 "$dir/cgroup"
  [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
  exit
  ;;
esac

mount -t tmpfs tmpfs "$dir/layer"
mkdir "$dir/layer/upper" "$dir/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/layer/upper,workdir=$dir/layer/work" "$dir/root"
cd "$dir/root"
# No source of packages of the machine's own: the tests need no network.
rm -rf etc/apt/sources.list etc/apt/sources.list.d/* var/lib/apt/lists/* etc/yum.repos.d/*
cp -r "$dir/etc" "$dir/srv" .
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/sshd
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir old
pivot_root . old
umount -l old
exec env -i container=runback PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  chroot . /lib/systemd/systemd --unit=rb.target --log-target=console --show-status=no </dev/null
