#!/bin/sh
# Assembles a sandbox's root from the shared read-only base (/dev/vda) and its own writable disk
# (/dev/vdb), brings up the network that is the same for every sandbox, and hands over to systemd.
# A failure ends this process, and with it (panic=-1) the machine.

die() {
    echo "runtools: $1" >/dev/console
    exit 1
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc
# Opening these loads their module, as a device manager would have it.
mkdir -p /dev/net
mknod -m 666 /dev/net/tun c 10 200
mknod -m 660 /dev/loop-control c 10 237

while read -r module; do
    insmod "/modules/$module" || die "no module $module"
done </modules/order

tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
    tries=$((tries + 1))
    [ $tries -le 1000 ] || die "no disks"
    usleep 10000
done

mount -t tmpfs -o mode=755,nosuid,nodev run /run
mkdir -p -m 700 /run/runtools
mkdir /run/runtools/base /run/runtools/overlay
mount -t erofs -o ro /dev/vda /run/runtools/base || die "no base image"
mount -t ext4 -o noatime,discard,noinit_itable /dev/vdb /run/runtools/overlay || die "no writable disk"
cd /run/runtools/overlay && mkdir -p upper work || die "the writable disk is full"
cd /
mount -t overlay -o lowerdir=/run/runtools/base,upperdir=/run/runtools/overlay/upper,workdir=/run/runtools/overlay/work \
    root /root || die "no overlay"

# What the host appended to this very boot: who knows it may talk to the agent.
if [ -f /runtools-token ]; then
    mv /runtools-token /run/runtools/token
    chmod 600 /run/runtools/token
fi

ip link set lo up
if [ -e /proc/sys/net/ipv4/conf/eth0 ]; then
    echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip route add default via 10.0.2.2
fi

mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /run /root/run
exec switch_root /root /sbin/init
