#!/bin/sh
# Load for the disks of a guest whose root is on one of them: fio writes and verifies on both while their interrupts move
# between its CPUs; then, with fio still at it, numbered records are synced, each said on the console once it is, until
# somebody ends the guest.
#   load.sh SECONDS   how long fio runs before the first record
# A run of fio says "@@FIO NAME ERROR READ WRITTEN@@" for each job (KiB), "@@FIO-END STATUS@@", and what became of the interrupts.

# Each affinity that can be had, in turn. An interrupt that can't move (of the I/O APIC's timer, of none) says so; that is no trouble.
move() {
    moved=0
    while :; do
        for mask in 1 2 3; do
            for irq in /proc/irq/[0-9]*; do
                echo $mask 2>/dev/null >"$irq/smp_affinity" && moved=$((moved + 1))
            done
        done
        # Nobody reads half of it.
        echo $moved >/tmp/moving && mv /tmp/moving /tmp/moved
    done
}

cat >/tmp/job <<'JOB'
[global]
direct=1
bs=4k-32k
rw=randrw
verify=crc32c
verify_fatal=1
verify_backlog=32
time_based
thread
fsync=16
[root]
ioengine=libaio
iodepth=8
filename=/data/fio
size=16m
[second]
ioengine=psync
filename=/dev/vdb
size=16m
JOB

move 2>/dev/null &

if [ "$1" -gt 0 ]; then
    fio --minimal --runtime="$1" /tmp/job >/tmp/fio 2>&1
    status=$?
    awk -F ';' '$1 == 3 { print "@@FIO " $3, $5, $6, $47 "@@" }' /tmp/fio
    grep -v '^3;' /tmp/fio
    grep virtio /proc/interrupts
    echo "@@MOVED $(cat /tmp/moved)@@"
    # What is lost of the HPET's RTC says more of the host, as guest-init.sh has it.
    dmesg | grep -v 'hpet: Lost [0-9]* RTC interrupts' | grep -iE 'error|nobody cared|lost|stall|hung|timed out|blocked for|call trace' | sed 's/^/@@TROUBLE /'
    echo "@@FIO-END $status@@"
fi

fio --minimal --runtime=3600 /tmp/job >/tmp/fio 2>&1 &
number=0
while [ $number -lt 4000 ]; do
    yes "record $number of the guest" | head -c 4096 >/tmp/record
    dd if=/tmp/record of=/data/r$number conv=fsync 2>/dev/null || break
    echo "@@RECORD $number@@"
    number=$((number + 1))
done
