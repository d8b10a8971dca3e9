#!/bin/busybox sh
# Process 1 of a guest. Acts on words of the kernel command line, in this order:
#   th.virtio     loads the drivers of virtio devices
#   th.root=DEVICE  goes on in the ext4 file system there, whose /sbin/init this is, too
#   th.load=SECS  keeps every CPU busy with timers, forks and wake-ups across CPUs for so long
#   th.clocksource=NAME  makes it the current clocksource
#   th.sh=BASE64  runs this script; its output and exit code are a section
#   th.report     prints the sections below
#   th.dmesg      prints the whole kernel log as a section
#   th.shell      gives a shell on the console (also when there is no th. word at all)
#   th.panic      panics
#   th.reboot     reboots at the end; otherwise the guest powers off
# A section is a line "@@TOPHALF-BEGIN name@@", its text, and a line "@@TOPHALF-END name@@".
# "@@TOPHALF-DONE@@" follows the last one: without it the report is not whole.
export PATH=/bin HOME=/root
if [ "$0" = /init ]; then
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts
    mount -t devpts devpts /dev/pts
else
    mount -t tmpfs tmpfs /tmp
fi
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

if [ "$0" = /init ]; then
    # For another kernel than the one they come from they are no use, and that is no trouble.
    for module in /modules/*; do insmod "$module" 2>/dev/null; done
    if word th.virtio >/dev/null; then
        for module in /virtio/*; do insmod "$module"; done
    fi
    if root=$(word th.root) && [ -n "$root" ]; then
        mkdir /disk
        mount -t ext4 "$root" /disk
        for tree in dev proc sys; do mount --move /$tree /disk/$tree; done
        exec switch_root /disk /sbin/init
    fi
fi

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

idle_threads() {
    dmesg | grep -i 'idle threads'
}

# What must not be in the log of a guest whose interrupts all work.
# Interrupts of the RTC that Linux makes from the HPET are counted as lost when they are late by more than 15 ms, which says
# more of the host.
trouble() {
    dmesg | grep -v "hpet: Lost [0-9]* RTC interrupts" | grep -iE "spurious|nobody cared|no irq handler|unhandled|lost|stall|lockup|hung|timed out|timeout\
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
    section hrtimers grep hres_active /proc/timer_list
    section idle idle_threads
    # What entered the kernel: 255 is a boot loader without a number, 176 the PVH entry.
    section loader cat /proc/sys/kernel/bootloader_type
}

if seconds=$(word th.load) && [ -n "$seconds" ]; then load "$seconds"; fi
if clocksource=$(word th.clocksource) && [ -n "$clocksource" ]; then
    echo "$clocksource" >/sys/devices/system/clocksource/clocksource0/current_clocksource
fi
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
# Setting the terminal waits until all is sent: a panic does not.
if word th.panic; then stty sane; echo c >/proc/sysrq-trigger; fi
if word th.reboot; then reboot -f; fi
poweroff -f
