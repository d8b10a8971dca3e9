//! The script that boots everything, and what it prints: one line a boot.

use super::LIMIT_OF_A_BOOT;
use crate::bench::kinds::Plan;

const CMDLINE: &str = "console=ttyS0 th.report";

/// The whole script. A boot is a line `@@boot KIND CPUS ROUND START INIT END STATUS UPTIME`: times in
/// seconds of /proc/uptime, the uptime is the guest's own when its first process ran.
pub fn script(plan: &Plan) -> String {
    plan.script(PRELUDE, "boot", LIMIT_OF_A_BOOT, CMDLINE)
}

/// How one boot is run. A program's own messages matter only when it fails.
const PRELUDE: &str = r#"
up() { read -r now idle </proc/uptime; }
boot() {
    head="$1 $2 $3"
    shift 3
    up; start=$now; init=-; uptime=-; inside=
    { "$@" 2>"$work/errors" </dev/null; echo $? >"$work/status"; } | {
        while read -r line; do
            case $line in
                *"@@TOPHALF-BEGIN uptime@@"*) up; init=$now; inside=1 ;;
                *) if [ "$inside" ]; then uptime=$(echo "$line" | tr -d '\r'); inside=; fi ;;
            esac
        done
        echo "$init $uptime" >"$work/init"
    }
    up
    read -r init uptime <"$work/init"
    read -r status <"$work/status"
    echo "@@boot $head $start $init $now $status $uptime"
    if [ "$status" != 0 ]; then head -n 5 "$work/errors"; fi
}
"#;

#[cfg(test)]
mod tests;
