//! The guest's initramfs: that of the tests, and behind it the script that measures and the packet generator.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Options, script};
use crate::assets::Assets;
use crate::cpio::Archive;

/// What the guest runs. A measurement's line `@@begin NAME@@` comes when it has begun, `@@end NAME@@` when it has ended: what a program needs to
/// start counts nowhere. `@@value NAME RATE COUNT INTERRUPTS` is what came of it: a second's worth, and how many operations and interrupts of
/// virtio devices there were in all.
const SCRIPT: &str = r#"
for module in /bench/*; do insmod "$module"; done
mkdir /disk
mount -t ext4 /dev/vda /disk
for tree in dev proc sys tmp; do mount -o bind /$tree /disk/$tree; done

# Interrupts of virtio devices so far.
interrupts() { awk '/virtio/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' /proc/interrupts; }

# NAME and fio's options; then the fields of its result (terse, version 3) that have the rate and KiB, and KiB of an operation.
disk() {
    name=$1 rate=$2 total=$3 size=$4
    shift 4
    before=$(interrupts)
    chroot /disk fio --minimal --name="$name" --filename=/dev/vdb --direct=1 --ioengine=libaio --thread --time_based \
        --runtime=SECONDS --iodepth=DEPTH --exec_prerun="echo @@begin $name@@ >/dev/console; true" \
        --exec_postrun="echo @@end $name@@ >/dev/console; true" "$@" >/tmp/fio
    awk -F ';' -v rate="$rate" -v total="$total" -v size="$size" -v name="$name" -v irqs=$(($(interrupts) - before)) \
        '$1 == 3 && $5 == 0 { print "@@value", name, $rate, int($total / size), irqs }' /tmp/fio
}
disk random-read 8 6 4 --rw=randread --bs=4k
disk read 7 6 128 --rw=read --bs=128k
disk write 48 47 128 --rw=write --bs=128k

ip addr add GUEST/24 dev eth0
ip link set eth0 up
pg() { echo "$2" >/proc/net/pktgen/$1; }
pg kpktgend_0 "add_device eth0"
for setting in "count 0" "pkt_size 60" "delay 0" "dst HOST" "dst_mac 02:00:00:00:00:99"; do pg eth0 "$setting"; done
(sleep SECONDS; pg pgctrl stop) &
before=$(interrupts)
echo "@@begin send@@"
pg pgctrl start
echo "@@end send@@"
echo "@@value send $(sed -n 's/^ *\([0-9]*\)pps.*/\1/p' /proc/net/pktgen/eth0)" \
    "$(sed -n 's/.*pkts-sofar: \([0-9]*\).*/\1/p' /proc/net/pktgen/eth0) $(($(interrupts) - before))"

ping -c 1 -w 20 HOST >/dev/null
before=$(interrupts)
echo "@@begin answer@@"
ping -A -q -w SECONDS HOST >/tmp/ping
echo "@@end answer@@"
awk -v seconds=SECONDS -v irqs=$(($(interrupts) - before)) \
    '/packets transmitted/ { print "@@value answer", $4 / seconds, $4, irqs }' /tmp/ping

# NAME, the interface's counter, the host's port, and who has the stream.
stream() {
    name=$1 counter=/sys/class/net/eth0/statistics/$2 port=$3
    shift 3
    bytes=$(cat $counter) before=$(interrupts)
    echo "@@begin $name@@"
    timeout SECONDS nc HOST $port -e "$@" 2>/dev/null
    echo "@@end $name@@"
    bytes=$(($(cat $counter) - bytes))
    awk -v bytes=$bytes -v seconds=SECONDS -v name="$name" -v irqs=$(($(interrupts) - before)) \
        'BEGIN { if (bytes >= 65536) print "@@value", name, bytes / 1024 / seconds, int(bytes / 65536), irqs }'
}
stream stream-in rx_bytes SOURCE dd of=/dev/null bs=64k
stream stream-out tx_bytes SINK cat /dev/zero
"#;

/// Makes it.
///
/// # Errors
/// Exit code 4 when a part is missing and can't be had.
pub fn make(assets: &Assets, options: &Options) -> Result<PathBuf> {
    let mut archive = Archive::new();
    let words = [
        ("SECONDS", options.seconds.to_string()),
        ("DEPTH", options.depth.to_string()),
        ("GUEST", script::GUEST.to_owned()),
        ("HOST", script::HOST.to_owned()),
        ("SOURCE", script::PORTS[0].to_string()),
        ("SINK", script::PORTS[1].to_string()),
    ];
    let text = words.iter().fold(SCRIPT.to_owned(), |text, (name, value)| text.replace(name, value));
    archive.file("bench.sh", 0o755, text.as_bytes());
    for (index, module) in assets.kernel()?.modules(&["pktgen"])?.iter().enumerate() {
        archive.file(&format!("bench/{index:02}.ko"), 0o644, &read(module)?);
    }
    let mut whole = read(&assets.guest_initrd()?)?;
    whole.extend(archive.finish());
    assets.file("bench-io-initrd.cpio", &whole)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
