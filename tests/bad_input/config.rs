//! The configuration file, the log's form, and `doctor`.

use std::path::Path;

use super::common::{Finished, Scratch, run, tophalf};
use super::{HOST, USAGE, assert_refused, no_kvm, refused, with_another_dev_kvm};

/// Refused by `tophalf run` with this text as the file of --config; the message names the file.
#[track_caller]
fn file_refused(text: &[u8], words: &[&str]) {
    let file = Scratch::file(text);
    path_refused(file.path(), words);
}

#[track_caller]
fn path_refused(path: &Path, words: &[&str]) {
    let name = path.to_string_lossy();
    let words: Vec<_> = words.iter().copied().chain([&*name]).collect();
    refused(&["run", "--config", &name], USAGE, &words);
}

#[test]
fn configuration_files() {
    file_refused(b"kernel = \"k\"\ncpu = 2\n", &["line 2", "unknown key \"cpu\"", "did you mean \"cpus\"?"]);
    file_refused(b"zzz = 2\n", &["line 1", "unknown key \"zzz\"", "there are", "memory"]);
    file_refused(b"\n\ncpus = \"2\"\n", &["line 3", "cpus", "u32"]);
    file_refused(b"cpus = 99999999999\n", &["line 1", "cpus", "99999999999"]);
    file_refused(b"cpus 2\n", &["line 1", "no TOML"]);
    file_refused(b"log-format = \"xml\"\n", &["line 1", "xml", "`text`", "`json`"]);
    file_refused(b"cmdline = \"\xff\"\n", &["no text in UTF-8", "--config"]);
    file_refused(&vec![b'#'; (1 << 20) + 1], &["larger than 1 MiB", "--config"]);
    path_refused(Scratch::name().path(), &["No such file", "check --config"]);
    path_refused(&std::env::temp_dir(), &["no regular file", "TOML file"]);
    path_refused(Path::new("/dev/null"), &["no regular file", "TOML file"]);
}

/// A value that is of the right type and still wrong is refused as if a flag had given it.
#[test]
fn values_in_a_file() {
    for (text, words) in [
        ("kernel = \"k\"\ncpus = 0\n", &["0 vCPUs", "give --cpus 1 or more"][..]),
        ("kernel = \"k\"\nmemory = \"lots\"\n", &["\"lots\" is not a number"]),
        ("kernel = \"k\"\nmemory = 1\n", &["too small", "16M or more"]),
        ("cpus = 2\n", &["no kernel", "<KERNEL>"]),
        (
            "kernel = \"k\"\ncpus = 1\napic-ids = \"0,1\"\n",
            &["--cpus 1 contradicts --apic-ids, a list of 2", "leave --cpus out"],
        ),
        (
            "kernel = \"k\"\nbottom-half = [\"pit=inline\"]\n",
            &["pit can't run its bottom half in \"inline\"", "softirq, tasklet, workqueue"],
        ),
    ] {
        let file = Scratch::file(text.as_bytes());
        let name = file.path().to_string_lossy();
        refused(&["run", "--config", &name], USAGE, words);
    }
    // The same when it is only to be printed; but a kernel is not needed for that.
    refused(&["run", "--print-config", "--cpus", "0"], USAGE, &["0 vCPUs", "give --cpus 1 or more"]);
    refused(&["run", "--print-config", "--memory", "x"], USAGE, &["\"x\" is not a number"]);
}

#[test]
fn bottom_halves_in_places_that_there_are_not() {
    for (choice, words) in [
        ("serial", &["\"serial\" is no choice", "give --bottom-half DEVICE=PLACE"][..]),
        ("serial=thread", &["serial can't", "\"thread\"", "one of tasklet, inline, softirq, workqueue"]),
        ("hpet=inline", &["hpet can't", "\"inline\"", "one of softirq, tasklet, workqueue"]),
        ("i8042=softirq", &["\"i8042\" has no bottom half", "one of serial, pit, rtc, hpet, pm, watchdog, storm"]),
        ("=", &["\"\" has no bottom half"]),
    ] {
        refused(&["run", "--bottom-half", "pit=tasklet", "--bottom-half", choice, "k"], USAGE, words);
    }
}

#[test]
fn a_watchdog_with_nothing_to_do() {
    let words = ["\"bark\" is nothing to do for a watchdog", "give --watchdog reset, poweroff, dump or none"];
    refused(&["run", "--watchdog", "bark", "k"], USAGE, &words);
}

fn printed(arguments: &[&str]) -> String {
    let mut command = tophalf();
    command.args(["run", "--print-config"]).args(arguments);
    let finished = run(command, b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    String::from_utf8(finished.stdout).expect("TOML is UTF-8")
}

#[test]
fn the_printed_configuration_reads_back_to_the_same() {
    let text = printed(&["a kernel", "--initrd", "i", "-c", "3", "--cmdline", "x=\"1 2\" 'y'", "--no-reboot", "-vv"]);
    let file = Scratch::file(text.as_bytes());
    let name = file.path().to_string_lossy();
    assert_eq!(printed(&["--config", &name]), text);
    let changed = printed(&["--config", &name, "-c", "1"]);
    assert_eq!(changed, text.replace("cpus = 3", "cpus = 1"));
    assert_ne!(changed, text);
}

/// One half of the contradiction in the file, the other a flag: neither is the default, so neither gives way.
#[test]
fn a_file_and_a_flag_that_contradict_each_other() {
    for (text, flags, words) in [
        ("cpus = 1\n", ["--apic-ids", "0,1"], "--cpus 1 contradicts --apic-ids, a list of 2"),
        ("apic-ids = \"0,1\"\n", ["--cpus", "1"], "--cpus 1 contradicts --apic-ids, a list of 2"),
    ] {
        let file = Scratch::file(text.as_bytes());
        let name = file.path().to_string_lossy();
        refused(&["run", "--config", &name, flags[0], flags[1], "k"], USAGE, &[words, "leave --cpus out"]);
    }
}

/// Red when: the default is no longer printed, or is printed beside a list that it contradicts.
#[test]
fn the_number_of_vcpus_is_printed_where_no_list_decides_it() {
    let lines = |arguments: &[&str]| -> Vec<String> {
        let text = printed(arguments);
        text.lines()
            .filter(|line| line.starts_with("cpus") || line.starts_with("apic-ids"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(lines(&[]), ["cpus = 1"]);
    assert_eq!(lines(&["--apic-ids", "0,2-4"]), ["apic-ids = \"0,2-4\""]);
    assert_eq!(lines(&["--apic-ids", "0,2-4", "--cpus", "4"]), ["cpus = 4", "apic-ids = \"0,2-4\""]);
}

#[test]
fn a_path_that_toml_cannot_hold() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut command = tophalf();
    command.args(["run", "--print-config"]).arg(OsStr::from_bytes(b"k\xff"));
    assert_refused(&run(command, b""), USAGE, &["TOML", "UTF-8"]);
}

#[test]
fn logs() {
    refused(&["run", "--log-format", "xml", "k"], USAGE, &["xml", "--log-format", "--help"]);
    let mut command = tophalf();
    command.args(["run", "--cpus", "0", "k"]).env("RUST_LOG", "vmm=loud");
    assert_refused(&run(command, b""), USAGE, &["RUST_LOG", "loud", "write for example RUST_LOG=info"]);
    // As JSON, errors are too.
    let mut command = tophalf();
    command.args(["run", "--log-format", "json", "--cpus", "0", "k"]);
    let finished = run(command, b"");
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(USAGE), &b""[..]));
    let line: serde_json::Value = serde_json::from_str(&finished.stderr).expect("one JSON object");
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("0 vCPUs")), "{line}");
}

fn doctor(arguments: &[&str]) -> Finished {
    let mut command = tophalf();
    command.arg("doctor").args(arguments);
    run(command, b"")
}

#[test]
fn doctor_on_this_host() {
    refused(&["doctor", "--yaml"], USAGE, &["--yaml", "--help"]);
    let code = if no_kvm() { HOST } else { 0 };
    let text = doctor(&[]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(code), ""));
    let json = doctor(&["--json"]);
    assert_eq!((json.code, json.stderr.as_str()), (Some(code), ""));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(report["usable"], code == 0);
    assert_eq!(report["problem"].is_null(), code == 0);
}

#[test]
fn doctor_without_kvm() {
    if let Some(finished) = with_another_dev_kvm("mount -t tmpfs none /dev", "doctor") {
        let text = String::from_utf8_lossy(&finished.stdout);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(HOST), ""));
        assert!(text.contains("there is no /dev/kvm") && text.contains("To do: "), "{text}");
    }
    if no_kvm() {
        return;
    }
    if let Some(finished) = with_another_dev_kvm("mount --bind /dev/null /dev/kvm", "doctor") {
        let text = String::from_utf8_lossy(&finished.stdout);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(HOST), ""));
        assert!(text.contains("is not the KVM device"), "{text}");
    }
}
