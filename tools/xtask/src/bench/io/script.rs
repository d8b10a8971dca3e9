//! The script that runs every guest, and what it prints.

use crate::bench::host::Host;
use crate::bench::kinds::Plan;
use crate::quote;

/// The guest runs `sh /bench.sh`.
const CMDLINE: &str = "console=ttyS0 quiet th.virtio th.sh=c2ggL2JlbmNoLnNo";
/// The interface that the script makes, and the addresses of its two ends.
pub const TAP: &str = "thbench";
/// The host's address.
pub const HOST: &str = "10.78.0.1";
/// The guest's.
pub const GUEST: &str = "10.78.0.2";
/// The ports of the host that send without end, and that take everything.
pub const PORTS: [u16; 2] = [5081, 5082];
/// KVM's count of exits.
const EXITS: &str = "/sys/kernel/debug/kvm/exits";
/// Where the script keeps the guests' disks; in memory, where /tmp is.
const FOLDER: &str = "/tmp/tophalf-bench-io";

/// What is measured: the name in the guest's lines, what a second's worth is called and by how much it is divided, and what it is.
pub const MEASURED: [(&str, &str, f64, &str); 7] = [
    ("random-read", "reads/s", 1.0, "4 KiB read at random"),
    ("read", "MiB/s", 1024.0, "128 KiB read in a row"),
    ("write", "MiB/s", 1024.0, "128 KiB written in a row"),
    ("send", "packets/s", 1.0, "Packets of 60 bytes sent as fast as the guest can"),
    ("answer", "round trips/s", 1.0, "Packets answered by the host, one after the other (ping)"),
    ("stream-in", "MiB/s", 1024.0, "A TCP stream from the host (an operation is 64 KiB)"),
    ("stream-out", "MiB/s", 1024.0, "A TCP stream to the host (an operation is 64 KiB)"),
];

/// The guests' disks: the image, and the one that is measured.
pub fn disks() -> Vec<String> {
    vec![format!("{FOLDER}/image"), format!("{FOLDER}/data")]
}

/// The whole script, with this many seconds at most for a guest. What a guest measures comes as `@@value KIND CPUS ROUND NAME RATE COUNT
/// INTERRUPTS`, what the program used meanwhile as `@@ticks KIND CPUS ROUND NAME GUEST USER SYSTEM EXITS` (hundredths of a second, and what KVM
/// has counted of all guests; missing where that can't be read), its end as `@@guest KIND CPUS ROUND STATUS`.
pub fn script(plan: &Plan, limit: u32, host: &Host) -> String {
    let words = [
        ("IMAGE", quote::word(&host.disk())),
        ("FOLDER", FOLDER.to_owned()),
        ("TAP", TAP.to_owned()),
        ("BUSYBOX", quote::word(&host.busybox())),
        ("SOURCE", PORTS[0].to_string()),
        ("SINK", PORTS[1].to_string()),
        ("EXITS", EXITS.to_owned()),
    ];
    let setup = words.iter().fold(SETUP.replace("ADDRESS", HOST), |text, (name, value)| text.replace(name, value));
    with_setup(plan, limit, &setup)
}

fn with_setup(plan: &Plan, limit: u32, setup: &str) -> String {
    plan.script(&[setup, &GUEST_FUNCTION.replace("EXITS", EXITS)].concat(), "guest", limit, CMDLINE)
}

/// Makes disks and interface, and the other ends of the streams.
const SETUP: &str = r#"
streams=
trap 'rm -rf "$work" FOLDER; kill $streams 2>/dev/null; tunctl -d TAP >/dev/null 2>&1' EXIT
mkdir -p FOLDER
cat IMAGE >FOLDER/image && dd if=/dev/zero of=FOLDER/data bs=1M count=128 2>/dev/null || exit 1
{ tunctl -t TAP || ip tuntap add TAP mode tap; } >/dev/null 2>&1
ip addr add ADDRESS/24 dev TAP && ip link set TAP up || { echo "no interface can be made: be root"; exit 1; }
[ -e EXITS ] || mount -t debugfs none /sys/kernel/debug 2>/dev/null
BUSYBOX nc -ll -p SOURCE -e BUSYBOX cat /dev/zero 2>/dev/null & streams=$!
BUSYBOX nc -ll -p SINK -e BUSYBOX dd of=/dev/null bs=64k 2>/dev/null & streams="$streams $!"
"#;

/// How one guest is run. A program's own messages matter only when it fails.
const GUEST_FUNCTION: &str = r#"
# Ticks of the program with its parts: in guests, in itself, in the kernel. And exits.
ticks() {
    read -r exits 2>/dev/null <EXITS || exits=
    read -r pid <"$work/pid"
    # A timeout that has the program for a child, or one that has become the program.
    read -r child rest 2>/dev/null <"/proc/$pid/task/$pid/children" || child=
    read -r stat 2>/dev/null <"/proc/${child:-$pid}/stat" || stat=
    set -- ${stat##*) }
    guest=${41:-0} user=$((${12:-0} - ${41:-0})) system=${13:-0}
}
guest() {
    head="$1 $2 $3"
    shift 3
    {
        "$@" 2>"$work/errors" </dev/null &
        echo $! >"$work/pid"
        wait $!
        echo $? >"$work/status"
    } | tr -d '\r' | {
        while read -r line; do
            case $line in
                "@@begin "*) ticks; g=$guest u=$user s=$system e=$exits ;;
                "@@end "*@@)
                    ticks
                    name=${line#@@end }
                    echo "@@ticks $head ${name%@@} $((guest - g)) $((user - u)) $((system - s)) ${e:+$((exits - e))}" ;;
                "@@value "*) echo "@@value $head ${line#@@value }" ;;
            esac
        done
    }
    read -r status <"$work/status"
    echo "@@guest $head $status"
    if [ "$status" != 0 ]; then head -n 5 "$work/errors"; fi
}
"#;

#[cfg(test)]
mod tests;
