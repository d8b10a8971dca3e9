//! CPUs taken away and given back from inside the guest, again and again.

use crate::assert_healthy;
use crate::guest::Guest;

/// All but the first CPU go and come back; `$1` rounds. Says how many CPUs there were after each half of the last round.
const SCRIPT: &str = r#"
cd /sys/devices/system/cpu
round=0
while [ $round -lt ROUNDS ]; do
    for cpu in cpu[1-9]*; do echo 0 >$cpu/online || exit 1; done
    alone=$(nproc)
    for cpu in cpu[1-9]*; do echo 1 >$cpu/online || exit 2; done
    round=$((round + 1))
done
echo $round rounds, $alone and $(nproc) CPUs
"#;

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn cpus_go_and_come_back_50_times() {
    let cpus = if std::env::var_os("TOPHALF_FULL").is_some() { 4 } else { 2 };
    let report = Guest::new().cpus(cpus).script(&SCRIPT.replace("ROUNDS", "50")).boot();
    let expected = [format!("50 rounds, 1 and {cpus} CPUs"), "@@TOPHALF-STATUS 0@@".to_owned()];
    assert_eq!(report.lines("script"), expected, "{report}");
    // A stall, a CPU that did not come up, or a lost interrupt would be in the log.
    assert_healthy(&report, cpus);
}
