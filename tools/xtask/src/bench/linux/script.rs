//! The script that runs every guest, and what it prints.

use super::LIMIT_OF_A_GUEST;
use crate::bench::kinds::Plan;

/// The guest runs `sh /bench.sh`.
const CMDLINE: &str = "console=ttyS0 quiet th.sh=c2ggL2JlbmNoLnNo";

/// The whole script. What a guest measures comes as `@@wakeup KIND CPUS ROUND MICROSECONDS COUNT` and `@@pipe KIND CPUS ROUND
/// TRIPS SECONDS`, its end as `@@guest KIND CPUS ROUND STATUS`.
pub fn script(plan: &Plan) -> String {
    plan.script(PRELUDE, "guest", LIMIT_OF_A_GUEST, CMDLINE)
}

/// How one guest is run. A program's own messages matter only when it fails.
const PRELUDE: &str = r#"
guest() {
    head="$1 $2 $3"
    shift 3
    { "$@" 2>"$work/errors" </dev/null; echo $? >"$work/status"; } | tr -d '\r' |
        sed -n "s/^@@wakeup /&$head /p; s/^@@pipe /&$head /p"
    read -r status <"$work/status"
    echo "@@guest $head $status"
    if [ "$status" != 0 ]; then head -n 5 "$work/errors"; fi
}
"#;

#[cfg(test)]
mod tests;
