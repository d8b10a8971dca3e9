use super::*;
use serde_json::json;

#[test]
fn the_executable_of_the_named_target_is_found_among_cargo_messages() {
    let messages = concat!(
        r#"{"reason":"compiler-artifact","target":{"name":"vmm"},"executable":null}"#,
        "\nnot json\n",
        r#"{"reason":"compiler-artifact","target":{"name":"boots"},"executable":"/t/deps/boots-1"}"#,
        "\n",
        r#"{"reason":"build-finished","success":true}"#,
    );
    assert_eq!(executable(messages, "boots"), Some(PathBuf::from("/t/deps/boots-1")));
    assert_eq!(executable(messages, "vmm"), None);
    assert_eq!(executable(messages, "other"), None);
}

#[test]
fn a_library_is_not_taken_for_a_program_of_the_same_name() {
    let metadata = json!({"packages": [
        {"name": "vmm", "targets": [{"name": "vmm", "kind": ["lib"]}]},
        {"name": "tophalf", "targets": [{"name": "tophalf", "kind": ["bin"]}, {"name": "boots", "kind": ["test"]}]},
    ]});
    assert_eq!(find_program(&metadata, "tophalf"), Some("tophalf".to_owned()));
    assert_eq!(find_program(&metadata, "vmm"), None);
    assert_eq!(find_program(&metadata, "boots"), None);
}
