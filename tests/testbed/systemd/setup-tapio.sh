# Sourced in the machine's new root before the pivot (inner.sh): installs tapio as its package would,
# with the units of deploy/systemd. $TAPIO is the program, $DEPLOY the folder of the units.
touch usr/bin/tapio
mount --bind "$TAPIO" usr/bin/tapio
mkdir -p etc/tapio
cp "$DEPLOY"/*.service etc/systemd/system/
: >etc/tapio/tapio.yaml
: >etc/tapio/server.yaml
mknod -m 600 dev/kmsg c 1 11
