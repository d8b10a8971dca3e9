#!/bin/busybox sh
# Process 1 of a guest. Acts on words of the kernel command line, in this order:
#   th.load=SECS  keeps every CPU busy with timers, forks and wake-ups across CPUs for so long
#   th.sh=BASE64  runs this script; its output and exit code are a section
#   th.report     prints the sections below
#   th.dmesg      prints the whole kernel log as a section
#   th.shell      gives a shell on the console (also when there is no th. word at all)
#   th.reboot     reboots at the end; otherwise the guest powers off
# A section is a line "@@TOPHALF-BEGIN name@@", its text, and a line "@@TOPHALF-END name@@".
# "@@TOPHALF-DONE@@" follows the last one: without it the report is not whole.
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
hostname guest

# Uptime before anything else: it is the boot time.
read -r uptime idle </proc/uptime
read -r cmdline </proc/cmdline
# The kernel's messages would land inside a section.
dmesg -n 1

# The value of the word $1, or nothing; fails when it is not there.
word() {
    for w in $cmdline; do
        case $w in
            "$1") return 0 ;;
            "$1="*) echo "${w#*=}"; return 0 ;;
        esac
    done
    return 1
}

section() {
    name=$1
    shift
    echo "@@TOPHALF-BEGIN $name@@"
    "$@"
    echo "@@TOPHALF-END $name@@"
}

cpus() {
    nproc
    cat /sys/devices/system/cpu/online
}

clock() {
    cat /sys/devices/system/clocksource/clocksource0/current_clocksource
    cat /sys/devices/system/clocksource/clocksource0/available_clocksource
}

clockevents() {
    grep . /sys/devices/system/clockevents/*/current_device | sed 's|.*/\([^/]*\)/current_device:|\1 |'
}

apic() {
    dmesg | grep -iE 'apic|8259|smp|tsc|deadline|vector|legacy pic'
}

# What must not be in the log of a guest whose interrupts all work.
trouble() {
    dmesg | grep -iE "spurious|nobody cared|no irq handler|unhandled|lost|stall|lockup|hung|timed out|timeout\
|mp-bios|bug:|warning:|oops|call trace|apic error|unstable|not responding|failed to respond|doesn't work\
|bogus|general protection|unchecked msr|not working|disabling irq"
}

load() {
    seconds=$1
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        taskset "$(printf %x $((1 << cpu)))" sh -c '
            read -r up rest </proc/uptime; end=$((${up%.*} + '"$seconds"'))
            while read -r up rest </proc/uptime; [ "${up%.*}" -lt "$end" ]; do usleep 1000; done' &
    done
    # Two ends of a pipe that move between the CPUs.
    timeout "$seconds" sh -c 'while :; do echo ping; done | while read -r x; do /bin/true; done' 2>/dev/null
    wait
}

script() {
    word th.sh | base64 -d >/tmp/script
    sh /tmp/script 2>&1
    echo "@@TOPHALF-STATUS $?@@"
}

report() {
    section uptime echo "$uptime"
    section cmdline echo "$cmdline"
    section cpus cpus
    section interrupts cat /proc/interrupts
    section clock clock
    section clockevents clockevents
    section apic apic
    section trouble trouble
}

if seconds=$(word th.load) && [ -n "$seconds" ]; then load "$seconds"; fi
if word th.sh >/dev/null; then section script script; fi
if word th.report; then report; fi
if word th.dmesg; then section dmesg dmesg; fi
case " $cmdline" in
    *" th."*) echo "@@TOPHALF-DONE@@" ;;
    *) cmdline="$cmdline th.shell" ;;
esac
if word th.shell; then
    read -r consoles </sys/class/tty/console/active
    tty=/dev/${consoles##* }
    echo "A shell in the guest; leave it with 'exit', and the guest powers off."
    setsid -c sh <"$tty" >"$tty" 2>&1
fi
if word th.reboot; then reboot -f; fi
poweroff -f
