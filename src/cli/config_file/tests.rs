//! Files that are wrong: the line, the key, the remedy.

use super::*;

#[track_caller]
fn refused(text: &str, line: usize, words: &[&str]) {
    let complaint = parse(text).expect_err(text);
    assert_eq!(complaint.line, Some(line), "{complaint:?}");
    assert_eq!(complaint.message.lines().count(), 1, "{complaint:?}");
    for word in words {
        assert!(complaint.message.contains(word), "no {word:?} in {complaint:?}");
    }
}

#[test]
fn an_unknown_key_names_itself_and_the_nearest() {
    refused("cpus = 1\n\ncpu = 2\n", 3, &["\"cpu\"", "did you mean \"cpus\"?"]);
    refused("no_reboot = true\n", 1, &["\"no_reboot\"", "did you mean \"no-reboot\"?"]);
    refused("initrdd = \"x\"", 1, &["did you mean \"initrd\"?"]);
    // Nothing is near: all are named.
    refused("zzz = 1\n", 1, &["\"zzz\"", "there are kernel, initrd, "]);
    // A table is a key too, and what makes no sense in a file is none.
    refused("# options\n[machine]\ncpus = 1\n", 2, &["\"machine\""]);
    refused("config = \"other\"\n", 1, &["\"config\""]);
}

#[test]
fn a_wrong_value_names_its_key() {
    refused("memory = \"1G\"\ncpus = \"two\"\n", 2, &["cpus: ", "two", "u32"]);
    refused("cpus = -1\n", 1, &["cpus: ", "-1"]);
    refused("cpus = 1.5\n", 1, &["cpus: ", "1.5"]);
    refused("cmdline = [\"a\"]\n", 1, &["cmdline: ", "string"]);
    refused("memory = true\n", 1, &["memory: ", "a size such as \"512M\""]);
    refused("no-reboot = \"yes\"\n", 1, &["no-reboot: ", "boolean"]);
    refused("log-format = \"xml\"\n", 1, &["log-format: ", "xml", "text", "json"]);
}

#[test]
fn what_is_no_toml_names_the_line() {
    refused("cpus = 1\nmemory = \n", 2, &["no TOML"]);
    refused("cpus = 1\ncpus = 2\n", 2, &["no TOML", "duplicate"]);
    refused("\u{0}", 1, &["no TOML"]);
}
