#!/bin/busybox sh
# Process 1 of the emulated host: mounts, loads KVM, runs /lab/run, hands back its exit code and files.
# It talks to lab/link.rs over virtio ports: ctl (lines and files), in, out, err, and hvc0 for a terminal.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
chmod 1777 /tmp
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname lab
ip link set lo up

load() {
    while read -r module; do insmod "/lab/$1/$module"; done <"/lab/$1/order"
}
{ load ports; load disks; } & ports=$!
load kvm & kvm=$!
wait $ports $kvm
dmesg -n 8

# A port shows up a moment after its driver is loaded; ctl is announced last.
port() {
    until set -- "$1" "$(grep -lx "$1" /sys/class/virtio-ports/*/name 2>/dev/null)" && [ -n "$2" ]; do
        usleep 5000
    done
    set -- "${2%/name}"
    echo "/dev/${1##*/}"
}
exec 9<>"$(port ctl)"
# The first reads may find the port not yet connected.
until read -r hello <&9; do usleep 5000; done

# When xtask goes away, so do we.
(cat <&9 >/dev/null; poweroff -f) &

if ! [ -c /dev/kvm ]; then
    echo "fail no /dev/kvm in the emulated host: its kernel could not load kvm_amd" >&9
    wait
fi
echo ready >&9
# A host that is kept from everything says no more of it.
(while sleep 10; do echo alive >&9; done) & pulse=$!

mark() {
    echo -n "$(cat /lab/marker)"
}

# What the command left in the background would keep its pipes open. Its session is not ours, which is 0.
end_sessions() {
    for stat in /proc/[0-9]*/stat; do
        read -r line 2>/dev/null <"$stat" || continue
        set -- "${line%% *}" ${line##*) }
        [ "$5" = 0 ] || kill -9 "$1" 2>/dev/null
    done
}

if [ -e /lab/tty ]; then
    setsid -c sh /lab/run </dev/hvc0 >/dev/hvc0 2>&1 9>&-
    echo $? >/lab/status
    stty raw -echo </dev/hvc0
    mark >/dev/hvc0
else
    # Plain pipes, as under any shell: a port can't be opened twice, so /dev/stdout would not work, and
    # opening /dev/stdin would block on a named pipe whose writer has gone.
    out=$(port out) err=$(port err)
    {
        sh -c 'echo $$ >/lab/input; exec cat "$0"' "$(port in)" | {
            # A subshell: or our own "Killed" would go to the command's stderr.
            (exec setsid sh /lab/run 2>&4 4>&- 9>&-)
            echo $? >/lab/status
            end_sessions
            kill "$(cat /lab/input)"
        } | { cat; mark; } >"$out"
    } 4>&1 | { cat; mark; } >"$err"
fi
kill $pulse
wait $pulse 2>/dev/null
echo "exit $(cat /lab/status)" >&9

number=0
while read -r file; do
    if [ -f "$file" ] && cat "$file" >/tmp/.copy; then
        echo "file $number $(stat -c %s /tmp/.copy)" >&9
        cat /tmp/.copy >&9
    else
        echo "nofile $number" >&9
    fi
    number=$((number + 1))
done </lab/copy-out
echo end >&9
wait
