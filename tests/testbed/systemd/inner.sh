#!/usr/bin/env bash
# PID 1 of the new namespaces: builds its own root, pivots into it and executes systemd. Run by
# up.sh.
set -eu
state=$1 name=$2 mode=$3 units=$4 setup=$5
mount --make-rprivate /
base=$state/mnt
mkdir -p "$base"
mount -t tmpfs -o size=2g,mode=755 tmpfs "$base" # visible in this mount namespace only
mkdir "$base"/{up,work,root}
mount -t overlay overlay -o "lowerdir=${ROOTFS:-/},upperdir=$base/up,workdir=$base/work" "$base/root"
[ -n "$units" ] && cp -r "$units" "$base/units"
cd "$base/root"
for d in tmp run proc sys dev; do mkdir -p $d; done
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=755,nosuid,nodev,size=512m tmpfs run
mount -t tmpfs -o mode=755,nosuid,nodev,size=1g tmpfs var/log
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys # read-only: udev and the like skip themselves
if [ "$mode" = unified ]; then
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/unified && mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup/unified
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup sys/fs/cgroup/systemd
    for c in memory cpu cpuacct cpuset pids blkio devices freezer; do
        mkdir sys/fs/cgroup/$c && mount -t cgroup -o nosuid,nodev,noexec,$c cgroup sys/fs/cgroup/$c
    done
fi
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r file major minor <<<"$n"
    mknod -m 666 "dev/$file" c "$major" "$minor"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
ln -s null dev/console

tr -d - </proc/sys/kernel/random/uuid >etc/machine-id.new
rm -f etc/machine-id
mv etc/machine-id.new etc/machine-id
echo "$name" >etc/hostname
: >etc/fstab
rm -f etc/resolv.conf
mkdir -p var/log/journal etc/systemd/system etc/systemd/journald.conf.d etc/systemd/system.conf.d
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires # only the units below are enabled
for unit in apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer man-db.timer \
    dpkg-db-backup.timer logrotate.timer phpsessionclean.timer systemd-udevd.service \
    systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-logind.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service getty.target systemd-update-utmp.service systemd-hwdb-update.service \
    systemd-firstboot.service systemd-machine-id-commit.service systemd-pstore.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
    dev-mqueue.mount modprobe@.service systemd-modules-load.service kmod-static-nodes.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
cat >etc/systemd/journald.conf.d/lab.conf <<J
[Journal]
Storage=persistent
RateLimitIntervalSec=0
SyncIntervalSec=1s
ForwardToSyslog=no
J
cat >etc/systemd/system.conf.d/lab.conf <<J
[Manager]
DefaultTimeoutStopSec=5s
DefaultTimeoutStartSec=10s
LogLevel=info
J
cat >etc/systemd/system/lab.target <<J
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
AllowIsolate=yes
J
cat >etc/systemd/system/lab-ready.service <<J
[Unit]
After=basic.target dbus.service systemd-journald.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/touch /run/lab-ready
J
mkdir -p etc/systemd/system/lab.target.wants
ln -s ../lab-ready.service etc/systemd/system/lab.target.wants/
[ -n "$units" ] && cp "$base/units"/* etc/systemd/system/
# shellcheck source=/dev/null # the caller's script
[ -n "$setup" ] && . "$setup"
mkdir -p .old
pivot_root . .old
cd /
hostname "$name"
ip link set lo up 2>/dev/null || true
umount -l /.old
rmdir /.old 2>/dev/null || true
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=tapio-test TERM=dumb \
    "$(command -v /lib/systemd/systemd /usr/lib/systemd/systemd | head -1)" \
    --system --unit=lab.target --show-status=false --log-target=journal
