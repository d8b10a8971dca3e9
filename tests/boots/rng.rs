//! The entropy device.

use crate::guest::Guest;

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_entropy_device_gives_numbers() {
    let script = "cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=4096 count=16 2>/dev/null >/tmp/a\n\
                  wc -c </tmp/a; tr -d '\\000' </tmp/a | wc -c";
    let report = Guest::new().word("th.virtio").script(script).option("--virtio", "mmio").flag("--rng").boot();
    let lines = report.lines("script");
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("virtio_rng.0", "65536"), "{report}");
    // One byte in 256 is zero: of so many, between 100 and 500 with all certainty.
    let others: usize = lines[2].trim().parse().expect("a number");
    assert!((65_536 - 500..65_536 - 100).contains(&others), "{report}");
}
